"""The consumers of a world and their sinks: tables of the real PostgreSQL, and an HTTP endpoint in memory.

`read_model` works in batches, `desk` in transactional lanes, and `forward` calls an endpoint. Some events are faulty:
they are refused permanently, or a few times, as the seed decides.
"""

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import CollectorRegistry

from bridge.avro.event_decoder import EventDecoder
from bridge.errors import PermanentError, TransientError
from bridge.event import Event
from bridge.runtime.signing_secret import Slot
from consumers.api import Batches, Consumer, Context, Lanes, Placed, Setup
from consumers.forward.consumer import open_forward
from consumers.forward.options import ForwardOptions
from consumers.forward.sink import Endpoint, ForwardMetrics
from consumers.http import HttpReply, judge
from consumers.options import ORDER_TOPICS
from consumers.read_model.consumer import open_read_model
from tests.builders import codec
from tests.simulation.dialects import MARKER
from tests.simulation.loop import PROCESS
from tests.simulation.world import World

DECODER = EventDecoder(codec(), registry=None)
NOTES = "desk.notes.v1"  # what `desk` publishes, in worlds with one of these kinds
PUBLISHING = {"publishing", "notes.ack_s", "notes.lost_answers", "broker"}
GROUPS = ("read_model", "desk", "forward")
TABLES = """
create schema desk;
create table desk.effect (
  number bigint generated always as identity,
  grp text, source text, event_id text, key text, topic text, part int, "offset" bigint
)
"""
_NOTE = """
insert into desk.effect (grp, source, event_id, key, topic, part, "offset")
select $1, * from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::int[], $7::bigint[])
"""
# What an event at fault does: refused for good, or a bug. Others are refused so often as must not park them, or slow.
GUILTY = ("refused", "bug")
STUMBLES = 3


class Effect(NamedTuple):
    """An effect, by its event and record."""

    event_id: str
    topic: str
    partition: int
    offset: int


@dataclass(eq=False)
class Sinks:
    """The sinks of a world's consumers; `state` of the endpoint is `up`, a status, `away`, or `late`."""

    world: World
    shares: Mapping[str, float]  # of events that are guilty, by how
    publishing: bool = False  # `desk` publishes a record for each event
    applied: list[Effect] = field(default_factory=list)  # by the endpoint
    state: str = "up"
    slow_s: float = 0.0
    lost_answers: float = 0.0

    def __post_init__(self) -> None:
        self._tried: Counter[tuple[str, str]] = Counter()
        self.rng = self.world.stream("sinks")
        self.mended = False  # nothing is refused any more

    def guilt(self, event_id: str) -> str:
        """Return the fault of an event in this world; empty if it has none."""
        draw = random.Random(f"{self.world.seed} guilt {event_id}").random()  # noqa: S311 - of the seed
        for kind, share in self.shares.items():
            if draw < share:
                return kind
            draw -= share
        return ""

    async def work(self, group: str, event_id: str) -> None:
        """Take the time of a handler, and raise for an event that is at fault."""
        process = PROCESS.get()
        self.world.note(process.name if process else "", "handles", event_id)
        await asyncio.sleep(self.rng.uniform(0.0005, 0.01))
        kind = "" if self.mended else self.guilt(event_id)
        self._tried[group, event_id] += 1
        if kind == "refused":
            raise PermanentError("refused")
        if kind == "bug":
            raise ValueError(MARKER)
        if kind == "stumbles" and self._tried[group, event_id] <= STUMBLES:
            raise TransientError("http_500")
        if kind == "slow":
            try:
                await asyncio.sleep(self.rng.uniform(0, 4))
            except asyncio.CancelledError:
                await asyncio.sleep(self.rng.uniform(0, 4))
                raise

    def build(self, group: str) -> tuple[Consumer, CollectorRegistry]:
        """Build a consumer as its process does."""
        registry = CollectorRegistry()
        return getattr(self, f"_{group}")(registry), registry

    def _read_model(self, registry: CollectorRegistry) -> Consumer:
        consumer = open_read_model(Setup({}, registry))
        real: Any = consumer.handle

        async def handle(batch: Sequence[Placed], connection: Any) -> None:
            await self._note(consumer.group, batch, connection)
            await real(batch, connection)
            for event, _ in batch:
                await self.work(consumer.group, event.id)

        return replace(consumer, handle=handle, mode=Batches(records=40, wait_s=0.05))

    def _desk(self, _: CollectorRegistry) -> Consumer:
        consumer = Consumer(
            "desk", ORDER_TOPICS, mode=Lanes(4, transactional=True), publishes=[NOTES] * self.publishing
        )

        @consumer.handler
        async def handle(event: Event, context: Context) -> None:
            await self._note("desk", [Placed(event, context)], context.connection)
            if self.publishing:
                context.publish(NOTES, event.key, event.id)
            await self.work("desk", event.id)

        return consumer

    @staticmethod
    async def _note(group: str, batch: Sequence[Placed], connection: Any) -> None:
        rows = [(e.source, e.id, e.key, c.topic, c.partition, c.offset) for e, c in batch]
        await connection.execute(_NOTE, group, *map(list, zip(*rows, strict=True)))

    def _forward(self, registry: CollectorRegistry) -> Consumer:
        options: dict[str, Any] = {"url": "https://b.example/", "secrets_dir": "/secrets", "lanes": "4"}
        consumer = open_forward(Setup(options, registry))
        metrics = ForwardMetrics(CollectorRegistry(), service="forward")
        return replace(consumer, around=partial(self._open, ForwardOptions(**options), metrics))

    @asynccontextmanager
    async def _open(self, options: ForwardOptions, metrics: ForwardMetrics) -> AsyncIterator[Endpoint]:
        slots: Any = SimpleNamespace(keys=[Slot("current", b"k" * 24)])
        yield Endpoint(self, slots, options, metrics=metrics, now=self.world.true_clock.now)  # type: ignore[arg-type]  # stands where `HttpClient` stands

    async def request(self, method: str, *_: Any, headers: Mapping[str, str] = {}, **__: Any) -> HttpReply:
        """Answer as the endpoint does, and raise as `HttpClient` then does."""
        await asyncio.sleep(self.rng.uniform(0.001, 0.02))
        if self.state == "away":
            raise TransientError("unreachable", systemic=True)
        status = int(self.state) if self.state.isdigit() else 200
        judge(status)
        if method != "GET":
            event_id, *place = (
                headers[name] for name in ("idempotency-key", "drx-topic", "drx-partition", "drx-offset")
            )
            await self.work("forward", event_id)
            self.applied.append(Effect(event_id, place[0], int(place[1]), int(place[2])))
        if self.state == "late":
            await asyncio.sleep(10.0)
            raise TransientError("timeout", systemic=True)
        await asyncio.sleep(self.rng.uniform(0.001, 0.02) + self.slow_s * self.rng.random())
        if self.rng.random() < self.lost_answers:
            raise TransientError("cut_off", systemic=True)
        return HttpReply(status, {}, b"")
