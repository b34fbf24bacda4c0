"""A bounded memory of ids, a few bytes each; when it is full, the entry that expires first is evicted.

An entry is a row of parallel arrays, 33 bytes in all. Entries whose keys end alike are chained; those that expire at
about the same time stand in one ring, so that neither looking up, nor expiring, nor making room ever searches.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

# The expiry of what must not be forgotten; the clock gets there in 2106.
NEVER = 0xFFFF_FFFF
# 64 s: the shortest window is a minute, and a day has so few rings that finding the next one costs nothing.
_RING_BITS = 6
_KEPT = NEVER >> _RING_BITS
# More than the one that comes, so that what has expired shrinks; few, so that no insertion is slow.
_EXPIRED_AT_ONCE = 2
_ITEM_BYTES = {"q": 8, "Q": 8, "I": 4, "B": 1}


class IdTable:
    """Entries by key; their numbers, from 1, are good until the next `add`."""

    def __init__(self, capacity: int, *, evicted_early: Callable[[], object] = lambda: None) -> None:
        """Hold up to `capacity` entries; `evicted_early` is called for each that had to go before its time."""
        self._capacity = capacity
        self._evicted_early = evicted_early
        buckets = 1 << (capacity - 1).bit_length()
        self._mask = buckets - 1
        self._buckets = _array("I", buckets)
        self._keys = _array("q", capacity + 1)
        self.bodies = _array("Q", capacity + 1)  # by number: what was given as `body`
        # By number: Unix seconds at which the entry expires, or `NEVER`.
        self.expiries = _array("I", capacity + 1)
        self.states = _array("B", capacity + 1)  # by number: what was given as `state`
        self._chained = _array("I", capacity + 1)
        self._next = _array("I", capacity + 1)
        self._previous = _array("I", capacity + 1)
        self._used = 0
        self._free = 0
        self._count = 0
        # The first entry of each, 0 when it is empty; what is kept has a ring that is never one of the soonest.
        self._rings: dict[int, int] = {_KEPT: 0}
        self._soonest: list[int] = []

    def __len__(self) -> int:
        """How many entries are held, expired ones that were not swept yet included."""
        return self._count

    def find(self, key: int) -> int:
        """Return the number of the entry of `key`, expired or not, or 0."""
        entry = self._buckets[key & self._mask]
        keys = self._keys
        while entry and keys[entry] != key:
            entry = self._chained[entry]
        return entry

    def add(self, key: int, body: int, state: int, *, expires: int, now: int) -> None:
        """Hold a key that `find` does not find: 64 bits, signed and spread evenly, as is `body`.

        `expires` is in Unix seconds, or `NEVER`; `now` is needed for expiry.
        """
        self._make_room(now)
        entry = self._free
        if entry:
            self._free = self._next[entry]
        else:
            entry = self._used = self._used + 1
        self._keys[entry] = key
        self.bodies[entry] = body
        self.states[entry] = state
        self.expiries[entry] = expires
        bucket = key & self._mask
        self._chained[entry] = self._buckets[bucket]
        self._buckets[bucket] = entry
        self._enter(entry, expires >> _RING_BITS)
        self._count += 1

    def change(self, entry: int, body: int, state: int, *, expires: int) -> None:
        """Replace the body, state and expiry of an entry."""
        self._leave(entry, self.expiries[entry] >> _RING_BITS)
        self.bodies[entry] = body
        self.states[entry] = state
        self.expiries[entry] = expires
        self._enter(entry, expires >> _RING_BITS)

    def evict_kept(self) -> None:
        """Evict what never expires; 0.6 µs each."""
        while entry := self._rings[_KEPT]:
            self._evict(entry)

    def _make_room(self, now: int) -> None:
        soonest = self._soonest
        # Nothing of a ring that has not begun has expired: mostly that is all there is to see.
        if soonest and soonest[0] << _RING_BITS <= now:
            for _ in range(_EXPIRED_AT_ONCE):
                entry = self._next_to_expire()
                if not entry or self.expiries[entry] > now:
                    break
                self._evict(entry)
        if self._count >= self._capacity:
            # When everything must be kept, the oldest of it.
            entry = self._next_to_expire() or self._rings[_KEPT]
            if self.expiries[entry] > now:
                self._evicted_early()
            self._evict(entry)

    def _next_to_expire(self) -> int:
        """Return the oldest of the entries that expire soonest, within 64 s; 0 if none expires."""
        soonest, rings = self._soonest, self._rings
        while soonest:
            entry = rings[soonest[0]]
            if entry:
                return entry
            del rings[heappop(soonest)]
        return 0

    def _evict(self, entry: int) -> None:
        self._leave(entry, self.expiries[entry] >> _RING_BITS)
        bucket = self._keys[entry] & self._mask
        each = self._buckets[bucket]
        if each == entry:
            self._buckets[bucket] = self._chained[entry]
        else:
            while self._chained[each] != entry:
                each = self._chained[each]
            self._chained[each] = self._chained[entry]
        self._next[entry] = self._free
        self._free = entry
        self._count -= 1

    def _enter(self, entry: int, ring: int) -> None:
        first = self._rings.get(ring)
        if not first:
            self._rings[ring] = self._next[entry] = self._previous[entry] = entry
            if first is None:
                heappush(self._soonest, ring)
            return
        last = self._previous[first]
        self._next[last] = entry
        self._previous[entry] = last
        self._next[entry] = first
        self._previous[first] = entry

    def _leave(self, entry: int, ring: int) -> None:
        after = self._next[entry]
        if after == entry:
            self._rings[ring] = 0
            return
        before = self._previous[entry]
        self._next[before] = after
        self._previous[after] = before
        if self._rings[ring] == entry:
            self._rings[ring] = after


def _array(kind: str, length: int) -> memoryview[int]:
    """Return zeros; pages that were never written take no memory, and nothing is ever copied to grow."""
    view: memoryview[int] = memoryview(mmap(-1, _ITEM_BYTES[kind] * length, MAP_PRIVATE | MAP_ANONYMOUS)).cast(kind)  # type: ignore[call-overload]  # `kind` is one of four
    return view
