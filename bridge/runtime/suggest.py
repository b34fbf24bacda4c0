"""Find what somebody who mistyped a name may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

# Below it, short names of nothing in common count as alike.
_ALIKE = 0.7


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean …?` with the most similar of the known names, or nothing if none is similar."""
    found = get_close_matches(name, list(known), n=1, cutoff=_ALIKE)
    return f"; did you mean {found[0]}?" if found else ""
