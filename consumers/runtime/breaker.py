"""Say when a consumer parks too much: a bad release must not empty a topic into the lot."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import zip_longest

from bridge.errors import BridgeError

# A tenth of the last two hundred: a few bad records park their keys, a bad release is stopped after 21.
LAST_RECORDS = 200
PARKED_MAX_PERCENT = 10


class ParkBreakerOpenError(BridgeError):
    """Too much was parked: the group stands still, and someone is paged."""

    code = "park_breaker_open"


class ParkBreaker:
    """Counts how many of the last records were parked; what is appended behind a parked key does not count.

    Attributes:
        last: How many are looked at.
    """

    def __init__(self, *, last: int = LAST_RECORDS, percent: float = PARKED_MAX_PERCENT) -> None:
        """Open when more than `percent` % of the `last` records were parked; fewer count as if they were all."""
        self.last = last
        self._last: deque[bool] = deque(maxlen=last)
        self._parked = 0
        self._reserved = 0
        self._max = int(last * percent / 100)

    @property
    def open(self) -> bool:
        """True when too much was parked."""
        return self._parked > self._max

    @property
    def left(self) -> int:
        """How many more may be parked in a row before it opens; the next one opens it when this is 0."""
        return max(0, self._max - self._parked - self._reserved)

    def reserve(self) -> bool:
        """Take room for one record that is about to be parked, beside others that are; False when there is none."""
        if not self.left:
            return False
        self._reserved += 1
        return True

    def give_back(self, records: int = 1) -> None:
        """Give back room that was reserved, once what was parked in it is noted, or was not parked."""
        self._reserved -= records

    def seed(self, ages: Sequence[int]) -> None:
        """Count what was parked in an earlier life: for each how many records were settled since, the oldest first."""
        for age, following in zip_longest(ages, ages[1:]):
            self.note(parked=1)
            self.note(other=age if following is None else max(0, age - following - 1))

    def reset(self) -> None:
        """Count from nothing."""
        self._last.clear()
        self._parked = 0

    def note(self, *, parked: int = 0, other: int = 0) -> None:
        """Count settled records, those parked last: that is the side on which to err."""
        for each in (False,) * other + (True,) * parked:
            if len(self._last) == self._last.maxlen and self._last[0]:
                self._parked -= 1
            self._last.append(each)
            self._parked += each
