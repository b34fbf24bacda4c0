"""Senders: their deliveries and retries, and the ledger of attempts and responses."""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson

from bridge.runtime.http_server import Response
from tests.simulation.dialects import Delivery, headers, secret
from tests.simulation.replica import Host, Request
from tests.simulation.world import World


@dataclass(eq=False)
class Attempt:
    """One request and its response; `outcome` is empty without one."""

    delivery: Delivery
    host: str
    start: str  # which process of the host had its port open
    sent_at: float
    origin: str = ""  # `replay` if an operator posted it
    variant: str = ""  # how the process was configured
    clock_s: float = 0.0  # what its host took for the time of day when it arrived
    finished: bool = False  # the process had read the topics when it arrived
    takes: bool = True  # its spool took entries then
    arrived_at: float = -1.0
    answered_at: float = -1.0  # when the process gave its answer
    status: int = 0
    outcome: str = ""
    code: str = ""
    received: bool = False  # the answer has reached the sender

    @property
    def is_unlooked(self) -> bool:
        """Whether the process could neither know what the topics hold nor wait for that."""
        return not self.finished and not self.takes

    @property
    def promised(self) -> bool:
        return self.status in (200, 202)


@dataclass(eq=False)
class Senders:
    """All clients of the public port, and the results of their requests."""

    world: World
    hosts: Sequence[Host]
    attempts: list[Attempt] = field(default_factory=list)
    under_way: int = 0
    keys: dict[str, int] = field(default_factory=lambda: {"drx": 0, "acme": 0, "plain": 0})  # which secret they use

    def __post_init__(self) -> None:
        self._turns: dict[str, asyncio.Future[None]] = {}
        self.on_answer: Any = lambda _attempt, _answer: None

    def send(self, delivery: Delivery, way: "Way") -> None:
        """Deliver in the background, after earlier deliveries of the key if the sender keeps order."""
        lane = f"{delivery.source} {delivery.key}"
        before = self._turns.get(lane) if way.in_order else None
        task = self.world.loop.create_task(self._deliver(delivery, way, before), context=self.world.context)
        if way.in_order:
            self._turns[lane] = task

    async def _deliver(self, delivery: Delivery, way: "Way", before: "asyncio.Future[None] | None") -> None:
        self.under_way += 1
        try:
            if before is not None:
                await asyncio.wait([before])
            rng = random.Random(way.salt)  # noqa: S311 - of the plan's chance
            for number in range(way.tries):
                host = self.hosts[(way.host + (number if way.roams else 0)) % len(self.hosts)]
                attempt = await self.attempt(delivery, host, rng, patience_s=way.patience_s)
                if attempt.received and attempt.promised:
                    return
                await asyncio.sleep(rng.uniform(0.5, 2.0) * min(2.0**number, 30.0))
        finally:
            self.under_way -= 1

    async def attempt(
        self,
        delivery: Delivery,
        host: Host,
        rng: random.Random,
        *,
        patience_s: float,
        origin: str = "",
        given: Mapping[str, str] | None = None,
    ) -> Attempt:
        """Post once, authenticated or with `given` headers, and wait for the response for a while."""
        world = self.world
        attempt = Attempt(delivery, host.name, "", world.loop.time(), origin)
        self.attempts.append(attempt)
        await asyncio.sleep(rng.uniform(0.0005, 0.01))
        port, process = host.port, host.process
        if port is None or process is None or port.closed:
            world.note("sender", delivery.number, "refused by", host.name)
            return attempt
        attempt.start, attempt.variant = process.name, host.variant
        attempt.finished, attempt.takes = host.has_read, host.takes
        came: asyncio.Future[Response] = world.loop.create_future()
        travels_s = rng.uniform(0.0005, 0.01)

        def answered(answer: Response) -> None:
            self._note(attempt, answer)
            world.later(travels_s, lambda: None if came.done() else came.set_result(answer))

        if given is None:
            given = headers(delivery, world.true_clock.now(), secret(delivery.source, self.keys[delivery.source]))
        path = f"/webhooks/{delivery.source}"
        request = Request(path, given, delivery.body, answered, head_first=rng.random() < 0.2)
        attempt.arrived_at, attempt.clock_s = world.loop.time(), host.clock.now()
        port.arrive(request, process)
        await asyncio.wait([came], timeout=patience_s)
        attempt.received = came.done()
        world.note("sender", delivery.number, "at", attempt.start, attempt.status, attempt.outcome, attempt.received)
        return attempt

    def _note(self, attempt: Attempt, answer: Response) -> None:
        content = orjson.loads(answer.body)
        attempt.answered_at = self.world.loop.time()
        attempt.status = answer.status
        attempt.outcome = content["outcome"]
        attempt.code = content.get("code") or content.get("reason") or ""
        self.on_answer(attempt, answer)


class Way(NamedTuple):
    """How a delivery is sent: its first host, its repeats, and the sender's reactions to responses."""

    host: int
    tries: int
    roams: bool  # to the other host with the next try
    patience_s: float
    in_order: bool  # after the one before of its key
    salt: int
