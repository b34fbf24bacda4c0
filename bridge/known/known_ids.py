"""The ids that an ingress process knows: pending, spooled or committed.

An id that is being published is *pending*, and forgotten if that fails. The body's hash distinguishes a repeat from a
conflict. Of an id only 64 bits of a keyed hash are kept. An event would be taken for a repeat of another only if these
and 64 bits of the body's SHA-256 were equal; if only these are, it is parked.

`kafka/follower.py` reads from the topics what earlier processes and other replicas wrote.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from secrets import token_hex

from bridge.event import Identity, Settled
from bridge.known.delivery_ids import DEDUPE_WINDOW_S, NewestBodies
from bridge.known.id_table import NEVER, IdTable

# 128 bits before every id that is hashed: Python's hash of a text is keyed, but the environment may set its key.
_SALT_BYTES = 16
# States of an entry.
_COMMITTED, _SPOOLED = 0, 1


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the events of one delivery, or of one parked delivery."""

    fresh: tuple[int, ...] = ()  # positions of identities that were not known; they are pending now
    # One for each that is pending with the same body: a retry attaches to it. Cancelling one harms nobody.
    pending: tuple[asyncio.Future[Settled], ...] = ()
    # Set when one is pending with another body: wait for it, then ask again; nothing was registered.
    rival: asyncio.Future[Settled] | None = None
    conflict: bool = False  # one is committed or spooled with another body; nothing was registered
    spooled: bool = False  # at least one of the known ones is only spooled


_FRESH = Known(fresh=(0,))
_CONFLICT = Known(conflict=True)


class _Pending:
    """A pending identity, and the futures that wait for its outcome."""

    __slots__ = ("body", "waiting")

    def __init__(self, body: int) -> None:
        self.body = body
        self.waiting: Sequence[asyncio.Future[Settled]] = ()  # in most cases no other delivery waits

    def attach(self) -> asyncio.Future[Settled]:
        """Return a future of the caller's own."""
        future: asyncio.Future[Settled] = asyncio.get_running_loop().create_future()
        self.waiting = [*(each for each in self.waiting if not each.done()), future]
        return future


class _SourceWindow:
    __slots__ = ("event_salt", "parked_salt", "window_s")

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.event_salt = token_hex(_SALT_BYTES)
        self.parked_salt = token_hex(_SALT_BYTES)


class KnownIds:
    """The index of one ingress process."""

    def __init__(
        self,
        *,
        windows_s: Mapping[str, float],
        capacity: int,
        now: Callable[[], float] = time.time,
        evicted_early: Callable[[], object] = lambda: None,
    ) -> None:
        """Start empty.

        An id is remembered for the `windows_s` of its source after it was committed; a million take 36 MiB.
        `evicted_early` is called for each that had to go sooner, for lack of `capacity`.
        """
        self._sources = {name: _SourceWindow(window_s) for name, window_s in windows_s.items()}
        self._table = IdTable(capacity, evicted_early=evicted_early)
        self._pending: dict[int, _Pending] = {}
        self._now = now
        self.newest = NewestBodies()
        # The tails of our own topics have been read, so that what earlier processes and other replicas wrote is known;
        # or they cannot be read, and nothing should wait for them any more.
        self.finished = False

    def __len__(self) -> int:
        """Ids held, those whose window has just ended included."""
        return len(self._table)

    def begin(self, identities: Sequence[Identity]) -> Known:
        """Return what is known of the identities of one delivery; unknown ones become pending."""
        now, table, pendings = self._now(), self._table, self._pending
        fresh: list[tuple[int, int, _Pending]] = []
        attached: list[_Pending] = []
        spooled = False
        for position, identity in enumerate(identities):
            key, body = self._hashes(identity)
            pending = pendings.get(key)
            if pending is not None and pending.body == body:
                attached.append(pending)
                continue
            if pending is not None and not identity.reason:
                return Known(rival=pending.attach())
            entry = table.find(key)
            held = entry and table.expiries[entry] > now
            if held and table.bodies[entry] == body:
                spooled |= table.states[entry] == _SPOOLED
            elif held and not identity.reason:
                return _CONFLICT
            else:
                fresh.append((position, key, _Pending(body)))
        for _, key, pending in fresh:
            pendings.setdefault(key, pending)
        if len(fresh) == len(identities) == 1:
            return _FRESH
        return Known(
            fresh=tuple(position for position, _, _ in fresh),
            pending=tuple(pending.attach() for pending in attached),
            spooled=spooled,
        )

    def begin_new(self, identities: Sequence[Identity]) -> bool:
        """Make the identities of one delivery pending if none is known; else do nothing and return False."""
        table, pendings = self._table, self._pending
        fresh: dict[int, _Pending] = {}
        for identity in identities:
            key, body = self._hashes(identity)
            entry = table.find(key)
            if key in pendings or key in fresh or (entry and table.expiries[entry] > self._now()):
                return False
            fresh[key] = _Pending(body)
        pendings.update(fresh)
        return True

    def settled(self, identity: Identity, state: Settled) -> None:
        """Note what became of an identity, in time or late; `committed` is final.

        `failed` forgets what was pending. What is pending with the same body ends here, and its waiters hear of it.
        """
        key, body = self._hashes(identity)
        pending = self._pending.get(key)
        if pending is not None and pending.body == body:
            del self._pending[key]
            for future in pending.waiting:
                if not future.done():
                    future.set_result(state)
        if state == "failed":
            return
        now = int(self._now())
        if state == "spooled":
            self._hold(key, body, _SPOOLED, NEVER, now)
        else:
            self._hold(key, body, _COMMITTED, self._expires(identity.source, self._now()), now)

    def forget_spooled(self) -> None:
        """Forget what is only spooled, so that repeats of it are taken again."""
        self._table.evict_kept()

    def in_topic(self, identity: Identity) -> bool | None:
        """Return whether what its topic has under the same id, however long ago, is the same body; None for nothing."""
        key, body = self._hashes(identity)
        entry = self._table.find(key)
        if not entry or self._table.states[entry] != _COMMITTED:
            return None
        return self._table.bodies[entry] == body

    def recalled(self, identity: Identity, at_s: float, record_key: bytes = b"") -> None:
        """Note what was found in a topic under `record_key`, of a delivery received at `at_s`; it may come twice.

        What became of an id in this process stands, except that what is only spooled gives way to what is committed.
        """
        self.newest.written(identity, record_key)
        if identity.source not in self._sources:  # neither configured nor spooled
            return
        key, body = self._hashes(identity)
        now = int(self._now())
        entry = self._table.find(key)
        if entry and self._table.states[entry] == _SPOOLED:
            # From now, not from its receipt: the drain that is to come must still find it.
            at_s = now
        expires = self._expires(identity.source, min(at_s, self._now()))
        if expires > now:
            self._hold(key, body, _COMMITTED, expires, now)

    def _hold(self, key: int, body: int, state: int, expires: int, now: int) -> None:
        """Hold what is committed or spooled; of two bodies the first committed one stands, else the first one."""
        table = self._table
        entry = table.find(key)
        if not entry:
            table.add(key, body, state, expires=expires, now=now)
        elif table.expiries[entry] <= now:
            table.change(entry, body, state, expires=expires)
        elif table.bodies[entry] != body:
            if table.states[entry] == _SPOOLED and state == _COMMITTED:
                table.change(entry, body, state, expires=expires)
        elif table.states[entry] == _SPOOLED or (state == _COMMITTED and expires > table.expiries[entry]):
            table.change(entry, body, state, expires=expires)

    def _hashes(self, identity: Identity) -> tuple[int, int]:
        """Return the hash of the id in its namespace, and that of the body."""
        name, event_id, body_sha256, reason = identity
        source = self._sources.get(name)
        if source is None:
            # Something spooled of a source that is not configured any more.
            source = self._sources[name] = _SourceWindow(DEDUPE_WINDOW_S)
        # Of a parked delivery the body belongs to the identity, so that one with another body is another one.
        key = f"{source.parked_salt}{event_id} {body_sha256}" if reason else source.event_salt + event_id
        return hash(key), int(body_sha256[:16], 16)

    def _expires(self, source: str, at_s: float) -> int:
        # Rounded up: a captured delivery that is not stale yet must not be forgotten for the last fraction of a second.
        return min(max(ceil(at_s + self._sources[source].window_s), 0), NEVER - 1)
