"""Ids known to an ingress process: pending, spooled or committed.

An id that is being published is *pending*, and forgotten if that fails. The body's hash distinguishes a repeat from a
conflict. Only 64 bits of a keyed hash of each id are stored. An event is mistaken for a repeat only if these bits and
64 bits of the body's SHA-256 are equal; with another body, the event is parked.

`kafka/known_ids_reader.py` adds the ids that earlier processes and other replicas wrote to the topics.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from secrets import token_hex

from bridge.event import Identity, Settled
from bridge.known.derived_ids import DEDUPE_WINDOW_S, NewestBodies
from bridge.known.id_table import NEVER, IdTable

# 128 random bits before every hashed id: Python's text hash is keyed, but the environment may fix its key.
_SALT_BYTES = 16
# States of an entry.
_COMMITTED, _SPOOLED = 0, 1


@dataclass(frozen=True, slots=True)
class Known:
    """Known states of the events of one delivery, or of one parked delivery."""

    fresh: tuple[int, ...] = ()  # positions of identities that were unknown and are now pending
    # A future for each identity pending with the same body, for a retry to wait for; may be cancelled.
    pending: tuple[asyncio.Future[Settled], ...] = ()
    # Set if one is pending with another body: wait, then call again; nothing was registered.
    rival: asyncio.Future[Settled] | None = None
    conflict: bool = False  # an id is committed or spooled with another body; nothing was registered
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
        """Return a new future for a caller."""
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
    """The known ids of one ingress process."""

    def __init__(
        self,
        *,
        windows_s: Mapping[str, float],
        capacity: int,
        now: Callable[[], float] = time.time,
        evicted_early: Callable[[], object] = lambda: None,
    ) -> None:
        """Start without ids.

        An id is remembered for its source's `windows_s` after it was committed; a million ids take 36 MiB.
        `evicted_early` is called for each id evicted sooner for lack of `capacity`.
        """
        self._sources = {name: _SourceWindow(window_s) for name, window_s in windows_s.items()}
        self._table = IdTable(capacity, evicted_early=evicted_early)
        self._pending: dict[int, _Pending] = {}
        self._now = now
        self.newest = NewestBodies()
        # True once the tails of our topics have been read, or cannot be read and need not be waited for.
        self.finished = False

    def __len__(self) -> int:
        """Number of ids, including ids whose window has just ended."""
        return len(self._table)

    def begin(self, identities: Sequence[Identity]) -> Known:
        """Return the known states of the identities of one delivery; unknown ones become pending."""
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
        """Note the outcome of an identity, even if late; `committed` is final.

        `failed` forgets a pending identity. If the body is the same, the pending state ends and waiters are notified.
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
        """Forget ids that are only spooled, so that repeats of them are accepted as new."""
        self._table.evict_kept()

    def in_topic(self, identity: Identity) -> bool | None:
        """Return whether the topic has this id with the same body, whatever its age; None if it lacks the id."""
        key, body = self._hashes(identity)
        entry = self._table.find(key)
        if not entry or self._table.states[entry] != _COMMITTED:
            return None
        return self._table.bodies[entry] == body

    def recalled(self, identity: Identity, at_s: float, record_key: bytes = b"") -> None:
        """Note an identity read from a topic, with its record key and receipt (Unix seconds); may be called twice.

        An outcome in this process takes precedence, except that a committed record replaces one that is only spooled.
        """
        if identity.source not in self._sources:  # neither configured nor spooled
            return
        key, body = self._hashes(identity)
        now = int(self._now())
        entry = self._table.find(key)
        if not entry and key not in self._pending:  # of another process; may be newer than what we know
            has_key = not identity.reason or record_key != identity.id.encode()
            self.newest.forget(identity.source, [record_key.decode("utf-8", "replace")] if has_key else [])
        if entry and self._table.states[entry] == _SPOOLED:
            # Counted from now instead of its receipt: a later drain must still find it.
            at_s = now
        expires = self._expires(identity.source, min(at_s, self._now()))
        if expires > now:
            self._hold(key, body, _COMMITTED, expires, now)

    def _hold(self, key: int, body: int, state: int, expires: int, now: int) -> None:
        """Store a committed or spooled id; of two bodies the first committed one is kept, else the first."""
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
        """Return the hashes of the id, in its namespace, and of the body."""
        name, event_id, body_sha256, reason = identity
        source = self._sources.get(name)
        if source is None:
            # A spooled record of a source that is no longer configured.
            source = self._sources[name] = _SourceWindow(DEDUPE_WINDOW_S)
        # For a parked delivery, the body is part of the identity: another body is another delivery.
        key = f"{source.parked_salt}{event_id} {body_sha256}" if reason else source.event_salt + event_id
        return hash(key), int(body_sha256[:16], 16)

    def _expires(self, source: str, at_s: float) -> int:
        # Rounded up, so that a delivery is not forgotten a fraction of a second before a replayed copy is stale.
        return min(max(ceil(at_s + self._sources[source].window_s), 0), NEVER - 1)
