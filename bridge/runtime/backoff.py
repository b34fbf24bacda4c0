"""Delays between retries: exponential back-off with jitter."""

import random
from collections.abc import Callable

Spread = Callable[[float, float], float]
"""Returns a number between two, such as `random.uniform`."""

# Maximum exponent, beyond any bound; prevents float overflow in a long outage.
_DOUBLINGS_MAX = 16


def backoff_s(
    failures: int, *, first_s: float, max_s: float, least_s: float | None = None, spread: Spread = random.uniform
) -> float:
    """Return the seconds to wait after `failures` (at least 1) in a row.

    A ceiling doubles from `first_s` up to `max_s`. The delay is random between `least_s` (default: half the ceiling)
    and the ceiling, so that many processes that failed together do not retry together.
    """
    ceiling = min(max_s, first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    return spread(ceiling / 2 if least_s is None else min(least_s, ceiling), ceiling)
