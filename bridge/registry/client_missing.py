"""When does an id that the registry does not know become poison? Decided from the times of its answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final
from uuid import UUID

# Poison only after this long, for a registry's replicas lag behind what writers already use.
GRACE_S: Final = 60.0
# Until then the registry is asked again no more often than this, however many records carry the id.
ASK_AGAIN_S: Final = 1.0
# Ids remembered at one time: garbage on a topic must not fill the memory.
REMEMBERED_MAX: Final = 1024


@dataclass(slots=True)
class _Absence:
    first: float
    last: float


class Missing:
    """Ids that a healthy registry has answered 404 for."""

    def __init__(self) -> None:
        """Start with none."""
        self._absences: dict[int | UUID, _Absence] = {}

    def note(self, key: int | UUID, *, now: float) -> None:
        """Remember a 404; `now` is in seconds of any steady clock."""
        absence = self._absences.setdefault(key, _Absence(now, now))
        absence.last = now
        if len(self._absences) > REMEMBERED_MAX:
            del self._absences[next(iter(self._absences))]

    def forget(self, key: int | UUID) -> None:
        """The id is known after all."""
        self._absences.pop(key, None)

    def fresh(self, key: int | UUID, *, now: float) -> bool:
        """True while the last answer is too young to ask again; after the grace an answer keeps for a whole grace."""
        absence = self._absences.get(key)
        if absence is None:
            return False
        return now - absence.last < (GRACE_S if self.poison(key) else ASK_AGAIN_S)

    def poison(self, key: int | UUID) -> bool:
        """True when 404s, and not mere silence, span the grace."""
        absence = self._absences.get(key)
        return absence is not None and absence.last - absence.first >= GRACE_S
