"""A bounded, compact table of ids; when it is full, the entry that expires first is evicted.

An entry is a row of parallel arrays, 33 bytes in all. Entries are chained by the last bits of their keys, and those
that expire at about the same time form a ring. So lookup, expiry and eviction never scan the table.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from mmap import MAP_ANONYMOUS, MAP_PRIVATE, mmap

# Expiry of entries to keep; as a Unix time it is reached in 2106.
NEVER = 0xFFFF_FFFF
# Rings of 64 s: the shortest window is a minute, and a day has few enough rings to find the next one cheaply.
_RING_BITS = 6
_KEPT = NEVER >> _RING_BITS
# Expired entries swept per insertion: more than one, so that they decrease, and few, so that insertion stays fast.
_EXPIRED_AT_ONCE = 2
_ITEM_BYTES = {"q": 8, "Q": 8, "I": 4, "B": 1}


class IdTable:
    """Entries by key; their numbers, from 1, are valid until the next `add`."""

    def __init__(self, capacity: int, *, evicted_early: Callable[[], object] = lambda: None) -> None:
        """Hold up to `capacity` entries; `evicted_early` is called for each one evicted before its expiry."""
        self._capacity = capacity
        self._evicted_early = evicted_early
        buckets = 1 << (capacity - 1).bit_length()
        self._mask = buckets - 1
        self._buckets = _array("I", buckets)
        self._keys = _array("q", capacity + 1)
        self.bodies = _array("Q", capacity + 1)  # by number: the given `body`
        # By number: Unix seconds at which the entry expires, or `NEVER`.
        self.expiries = _array("I", capacity + 1)
        self.states = _array("B", capacity + 1)  # by number: the given `state`
        self._chained = _array("I", capacity + 1)
        self._next = _array("I", capacity + 1)
        self._previous = _array("I", capacity + 1)
        self._used = 0
        self._free = 0
        self._count = 0
        # First entry of each ring, 0 if empty; kept entries have a ring that is never due.
        self._rings: dict[int, int] = {_KEPT: 0}
        self._soonest: list[int] = []

    def __len__(self) -> int:
        """Number of entries, including expired ones not swept yet."""
        return self._count

    def find(self, key: int) -> int:
        """Return the number of the entry of `key`, even if expired; 0 if there is none."""
        entry = self._buckets[key & self._mask]
        keys = self._keys
        while entry and keys[entry] != key:
            entry = self._chained[entry]
        return entry

    def add(self, key: int, body: int, state: int, *, expires: int, now: int) -> None:
        """Add a key that `find` does not find; `key` and `body` are signed, evenly distributed 64-bit integers.

        `expires` and `now` are Unix seconds; `expires` may be `NEVER`.
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
        """Evict the entries that never expire; 0.6 µs each."""
        while entry := self._rings[_KEPT]:
            self._evict(entry)

    def _make_room(self, now: int) -> None:
        soonest = self._soonest
        # Usually this check is all: nothing has expired in a ring whose time has not begun.
        if soonest and soonest[0] << _RING_BITS <= now:
            for _ in range(_EXPIRED_AT_ONCE):
                entry = self._next_to_expire()
                if not entry or self.expiries[entry] > now:
                    break
                self._evict(entry)
        if self._count >= self._capacity:
            # If all entries are to be kept, evict the oldest one.
            entry = self._next_to_expire() or self._rings[_KEPT]
            if self.expiries[entry] > now:
                self._evicted_early()
            self._evict(entry)

    def _next_to_expire(self) -> int:
        """Return the oldest entry of the ring (64 s) that expires first; 0 if none expires."""
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
    """Return an array of zeros of full size: unwritten pages take no memory, and it never has to grow."""
    view: memoryview[int] = memoryview(mmap(-1, _ITEM_BYTES[kind] * length, MAP_PRIVATE | MAP_ANONYMOUS)).cast(kind)  # type: ignore[call-overload]  # `kind` is one of four
    return view
