"""How long to wait before something that failed is tried again."""

import random
from collections.abc import Callable

Spread = Callable[[float, float], float]
"""A number between two, such as `random.uniform`."""

# A power that no bound reaches; without it a long outage would end in numbers that are no floats.
_DOUBLINGS_MAX = 16


def backoff_s(
    failures: int, *, first_s: float, max_s: float, least_s: float | None = None, spread: Spread = random.uniform
) -> float:
    """Return the seconds to wait after `failures` in a row, at least one.

    A ceiling doubles from `first_s` up to `max_s`. The delay is drawn below it, but not below `least_s`, by default
    half of it: many processes that failed together do not come back together.
    """
    ceiling = min(max_s, first_s * 2.0 ** min(failures - 1, _DOUBLINGS_MAX))
    return spread(ceiling / 2 if least_s is None else min(least_s, ceiling), ceiling)
