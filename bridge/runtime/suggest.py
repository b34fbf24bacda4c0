"""Find what somebody who mistyped a name may have meant."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches

# Below it, short names of nothing in common count as alike.
_ALIKE = 0.7


def did_you_mean(name: str, known: Iterable[str], *, written: Callable[[str], str] = str) -> str:
    """Return `; did you mean …?` with the most similar of the known names, or nothing if none is similar.

    Args:
        name: As it was given.
        known: All that it may have been meant to be.
        written: How a known name is shown.
    """
    found = get_close_matches(name, list(known), n=1, cutoff=_ALIKE)
    return f"; did you mean {written(found[0])}?" if found else ""
