"""Handle keys side by side and the records of each in order; a key that waits for a retry holds no worker."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum, auto

from bridge.errors import BridgeError
from bridge.kafka.transport import ConsumedRecord
from consumers.runtime.breaker import ParkBreakerOpenError
from consumers.runtime.circuit import Circuit
from consumers.runtime.ledger import FencedError
from consumers.runtime.parking import ParkingFullError, key_text
from consumers.runtime.share import Lane, Share


class Next(Enum):
    """What follows a step of a lane."""

    DONE = auto()
    """Its first record is settled."""
    AGAIN = auto()
    """It goes on without having settled its first record."""
    HANDED = auto()
    """Its first record is handled, and `finish` is called when it is settled too."""


@dataclass(frozen=True, slots=True)
class After:
    """The step is to be taken again after a while."""

    delay_s: float


Step = Callable[[Lane], Awaitable[Next | After]]


class KeyLanes:
    """The keys of all partitions; `work` is run by as many tasks as keys may be in hand at a time."""

    def __init__(
        self,
        step: Step,
        *,
        circuit: Circuit,
        fenced: Callable[[Share], None],
        stopped: Callable[[Share, BridgeError], None],
    ) -> None:
        """Take one `step` of a lane at a time while `circuit` is closed; tell who must know of what ends a share."""
        self._step = step
        self._circuit = circuit
        self._fenced = fenced
        self._stopped = stopped
        self._ready: deque[Lane] = deque()
        self._waiters: deque[asyncio.Future[None]] = deque()
        circuit.listen(self.wake_all)

    def put(self, share: Share, record: ConsumedRecord) -> None:
        """Let a record wait behind those of its key."""
        lane = self._lane(share, key_text(record))
        lane.records.append(record)
        if lane.state == "idle":
            self._make_ready(lane)

    def hold(self, share: Share, record: ConsumedRecord, *, attempt: int, delay_s: float) -> None:
        """Start the lane of a key with a record that was tried already."""
        lane = self._lane(share, key_text(record))
        lane.records.append(record)
        lane.attempt = attempt
        self._wait(lane, delay_s)

    def release(self, share: Share, key: str) -> None:
        """Let the parked records of a key go first."""
        lane = self._lane(share, key)
        lane.releasing = True
        share.moved()
        if lane.state == "idle":
            self._make_ready(lane)

    def finish(self, lane: Lane) -> None:
        """Go on with a lane whose first record is settled since it was handed on."""
        lane.share.end()
        self._follow(lane, Next.DONE)
        lane.share.wake.set()

    async def work(self) -> None:
        """Take steps until cancelled; raises what the process cannot outlive."""
        while True:
            lane = await self._take()
            share = lane.share
            share.begin()
            following: Next | After | None = None
            try:
                following = await self._step(lane)
            except FencedError:
                self._fenced(share)
            except (ParkBreakerOpenError, ParkingFullError) as exc:
                self._stopped(share, exc)
            finally:
                if following is not Next.HANDED:
                    share.end()
            if following is not None and following is not Next.HANDED:
                self._follow(lane, following)
            share.wake.set()

    def wake_all(self) -> None:
        """Let every idle worker look again."""
        while self._waiters:
            self._wake()

    def _lane(self, share: Share, key: str) -> Lane:
        lane = share.lanes.get(key)
        if lane is None:
            lane = share.lanes[key] = Lane(share, key)
        return lane

    def _follow(self, lane: Lane, following: Next | After) -> None:
        if lane.share.gone or lane.share.stopped:
            return
        if isinstance(following, After):
            self._wait(lane, following.delay_s)
            return
        if following is Next.DONE:
            lane.records.popleft()
            lane.attempt = 0
        if lane.records or lane.releasing:
            self._make_ready(lane)
        else:
            lane.state = "idle"
            lane.share.lanes.pop(lane.key, None)
            lane.share.away.discard(lane.key)

    def _wait(self, lane: Lane, delay_s: float) -> None:
        lane.state = "waiting"
        lane.timer = asyncio.get_running_loop().call_later(delay_s, self._make_ready, lane)

    def _make_ready(self, lane: Lane) -> None:
        lane.state = "ready"
        lane.timer = None
        self._ready.append(lane)
        self._wake()

    def _wake(self) -> None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _take(self) -> Lane:
        """Wait for the lane that has waited longest."""
        while True:
            lane = self._pick()
            if lane is not None:
                lane.state = "busy"
                return lane
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter

    def _pick(self) -> Lane | None:
        ready = self._ready
        while ready and ready[0].share.closed:
            ready.popleft()
        return ready.popleft() if ready and self._circuit.closed else None
