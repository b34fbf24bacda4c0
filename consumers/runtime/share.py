"""What this process holds of one partition: its window, the records waiting, and the keys handled one by one."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection
from typing import Any, Literal

from bridge.errors import BridgeError
from bridge.kafka.transport import ConsumedRecord, Place
from consumers.api import BATCH_RECORDS
from consumers.runtime.ledger import Claim, Ended
from consumers.runtime.parking import ParkingFullError, key_text
from consumers.runtime.window import Mark, Window

# Records handled one at a time after a death: as many as a batch holds and lanes have in hand. If the record that kills
# the process lies behind them, deaths repeat; from `DEATHS_MANY` on, all that a window holds are handled so.
CAREFUL_FIRST = BATCH_RECORDS
DEATHS_MANY = 3
# Our own objects around key, value and headers, and the headers of a record of the contract, as `sys.getsizeof` counts
# them.
OVERHEAD_BYTES = 2_048
# Without a settled or released record before a partition counts as waiting: a record that fails is tried five times,
# with pauses of 30 s at most, and ten times at a sink in a brown-out.
WAITS_S = 300.0
# As long as a window may hold: one of the records in hand at the time of death is at fault.
CAREFUL_RECORDS = 1024


class Lane:
    """The records of one key that is handled alone, oldest first; one of them is in hand at a time.

    Attributes:
        key: In text form.
        attempt: Attempts made at the first record.
        handled: The handler of the last attempt has returned, so what failed afterwards is not the record's fault.
        releasing: True while the parked records of the key go first.
        marked: It is committed that the release began.
    """

    __slots__ = ("attempt", "handled", "key", "marked", "records", "releasing", "share", "state", "timer")

    def __init__(self, share: Share, key: str) -> None:
        """Start empty."""
        self.share = share
        self.key = key
        self.records: deque[ConsumedRecord] = deque()
        self.attempt = 0
        self.handled = False
        self.releasing = False
        self.marked = False
        self.state: Literal["idle", "ready", "busy", "waiting"] = "idle"
        self.timer: asyncio.TimerHandle | None = None

    @property
    def name(self) -> tuple[Place, str]:
        """What the circuit knows the key by."""
        return self.share.place, self.key


class Share:
    """A partition as it was claimed; a new claim makes a new one.

    Attributes:
        parked: Keys set aside, in text form.
        queue: Taken in, and given to nobody yet.
        lanes: Keys handled one by one; what comes of them waits there.
        releases: Keys, in text form, whose release was asked for.
        away: Keys that wait for a registry that does not answer.
        calls: Handlers that run.
        careful_left: Records still to be handled one at a time, because the process keeps dying.
        suspect: Offset of the record that is marked before it is handled, lest it kills the process.
        attempted: Offset of the one that was marked last.
        direct: What comes goes to its lane, since nothing waits in the queue.
        replay: The next batch goes record by record, to find the one at fault.
        written: The mark as it is in the ledger.
        given_back: It is said, or being said, that what ends here is no death.
        activity: Counts whatever is tried, settled or released.
        moved_at: When a record was last settled or released, or the first taken into an empty window.
        stopped: Why nothing of it is settled any more; empty while things go on.
        full: What would have to leave the lot for it to go on, if it was stopped for that.
    """

    def __init__(self, place: Place, claim: Claim) -> None:
        """Hold nothing until `open`."""
        self.place = place
        self.claim = claim
        self.epoch = claim.epoch
        self.parked = set(claim.parked)
        self.window = Window(claim.next_offset or 0)
        self.opened = False
        self.queue: deque[ConsumedRecord] = deque()
        self.lanes: dict[str, Lane] = {}
        self.releases: set[str] = set()
        self.away: set[str] = set()
        self.calls: set[asyncio.Task[Any]] = set()
        self.driver: asyncio.Task[None] | None = None
        self.wake = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.active = 0
        self.activity = 0
        self.moved_at = 0.0
        self.draining = self.given_back = self.gone = self.replay = self.direct = False
        self.stopped = ""
        self.full: ParkingFullError | None = None
        died_on_one = claim.attempt_offset is not None and claim.attempt_offset >= (claim.next_offset or 0)
        self.careful_left = CAREFUL_FIRST if claim.deaths else 0
        if claim.deaths >= DEATHS_MANY or (died_on_one and claim.attempts > 0):
            self.careful_left = CAREFUL_RECORDS
        self.suspect: int | None = None
        self.attempted: int | None = None
        self.written = 0

    @property
    def closed(self) -> bool:
        """True when no record may be started any more."""
        return self.draining or self.gone or bool(self.stopped)

    @property
    def halted(self) -> bool:
        """Whether nothing can be settled for long, for a reason of its own."""
        return bool(self.stopped or self.away)

    def name(self, record: ConsumedRecord) -> tuple[Place, str]:
        """Return what the circuit knows the key of a record by."""
        return self.place, key_text(record)

    def take(self, record: ConsumedRecord, *, now: float) -> bool:
        """Take a record into the window; False when it was settled before."""
        if not self.window.unsettled:
            self.moved_at = now
        size = OVERHEAD_BYTES + len(record.value or b"") + len(record.key or b"")
        for _, content in record.headers:  # of another producer they may be of any size
            size += len(content)
        return self.window.add(record.offset, size=size, event_id=record.header("ce_id"), now=now)

    def open(self, offset: int) -> None:
        """Expect records from `offset` on."""
        known = offset == self.claim.next_offset
        self.window = Window(
            offset, last_event_id=self.claim.last_event_id if known else None, settled=self.claim.settled
        )
        self.written = offset
        self.opened = True

    def begin(self) -> None:
        """Note that something is in flight."""
        self.active += 1
        self.activity += 1
        self.idle.clear()

    def end(self) -> None:
        """Undo one `begin`."""
        self.active -= 1
        self.activity += 1
        if not self.active:
            self.idle.set()

    def settle(self, offsets: Collection[int], *, mark: Mark | None = None) -> None:
        """Settle records in the window; `mark` is what was written of it with them."""
        if self.gone:
            return
        self.window.settle(offsets)
        if offsets:
            self.moved()
        if mark is not None:
            self.written = max(self.written, mark.next_offset)

    def moved(self) -> None:
        """Note that a record was settled or released."""
        self.activity += 1
        self.moved_at = asyncio.get_running_loop().time()

    def waits(self, now: float) -> bool:
        """Whether records are in hand and none was settled or released for long, though nothing keeps them all."""
        in_hand = self.window.unsettled or any(lane.releasing for lane in self.lanes.values())
        return bool(in_hand) and not self.halted and now - self.moved_at > WAITS_S

    def ended(self) -> Ended:
        """Return what is to be taken back of the marks of this claim."""
        return Ended(self.place, self.epoch, self.attempted, [lane.key for lane in self.lanes.values() if lane.marked])

    def stop(self, why: BridgeError) -> None:
        """Settle nothing any more, and keep no record: all are read again once the partition is adopted anew."""
        self.stopped = why.code
        self.full = why if isinstance(why, ParkingFullError) else None
        self.queue.clear()
        for lane in self.lanes.values():
            lane.records.clear()

    def close(self) -> None:
        """Let go of everything: nothing of it counts any more."""
        self.gone = True
        for call in self.calls:
            call.cancel()
        for lane in self.lanes.values():
            if lane.timer is not None:
                lane.timer.cancel()
        self.queue.clear()
        self.wake.set()
        if self.driver is not None:
            self.driver.cancel()
