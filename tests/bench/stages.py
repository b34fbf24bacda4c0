"""What each stage of a delivery costs alone, so that a change shows where it was made."""

from __future__ import annotations

import asyncio
import itertools
import sys
import tempfile
import time
import timeit
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from http import HTTPStatus
from typing import Any

from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table

from bridge.avro.codec import Codec
from bridge.avro.schema_ids import RECORDS
from bridge.contract.events import EVENT_MODELS
from bridge.event import Delivery
from bridge.ingress.deduplicator import Deduplicator
from bridge.ingress.headers import check_content, read_heads, trace_of
from bridge.ingress.json_body import parse
from bridge.ingress.metrics import Observations
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from bridge.ingress.proof import FixedSecrets, HmacKey, KeySlot, Raw
from bridge.ingress.routes import Admission, Call, Engine, Source, Webhooks
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks
from bridge.kafka.partition_writer import NoSpool, PartitionWriters, WriterLimits
from bridge.kafka.publisher import Publisher
from bridge.kafka.record import MESSAGE_MAX_BYTES, Record
from bridge.kafka.routing import RoutingTable
from bridge.known.delivery_ids import NewestBodies
from bridge.known.known_ids import KnownIds
from bridge.registry.loader import bundled
from bridge.runtime.http import Request
from bridge.runtime.logging import configure_logging, log
from bridge.runtime.messages import Answer
from bridge.runtime.metrics import IngressMetrics
from tests.bench.traffic import HMAC_KEY, requests
from tests.builders import HEAD_RULES
from tests.engine_cases import engine

# Divisible by the number of types, so that each has its share.
DELIVERIES = 150
REPEATS = 20
PARTITIONS = 12


class Instant:
    """A producer whose acknowledgement costs nothing."""

    ready = True

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Acknowledge everything."""
        del topic, partition
        return len(records)

    async def close(self, timeout_s: float) -> None:
        """Nothing is open."""


class Delivered(Request):
    """A request that has come whole, on a connection that costs nothing."""

    def __init__(self, raw: bytes) -> None:
        """Parse it."""
        head, body = raw.split(b"\r\n\r\n", 1)
        first, *lines = head.split(b"\r\n")
        self.method, self.target, _ = first.decode().split(" ")
        self.raw_headers = [(name, value) for name, _, value in (line.partition(b": ") for line in lines)]
        self.began = time.perf_counter()
        self.body = body
        self.note = None
        self.answered = asyncio.Event()

    def trust(self) -> None:
        """Have nothing to note."""

    def answer(self, answer: Answer) -> None:
        """Note that it was answered."""
        assert answer.status == HTTPStatus.OK
        self.answered.set()


class Bench:
    """One of everything, with real deliveries."""

    def __init__(self) -> None:
        """Build as `app` does."""
        self.http = [Delivered(raw) for raw in requests(0, DELIVERIES)]
        self.keys = (KeySlot("current", HmacKey(HMAC_KEY)),)
        self.now = time.time()
        self.metrics = IngressMetrics(CollectorRegistry())
        self.observe = Observations(self.metrics, sources=["drx"], event_types=EVENT_MODELS, deadline_s=4.0)
        lock = bundled()
        self.codec = Codec(schemas=lock.schemas(), ids=lock.ids())
        known_ids = KnownIds(windows_s={"drx": 0.0}, capacity=1000)  # the same deliveries come again and again
        self.publisher = Publisher(
            writers=PartitionWriters(
                producer=Instant(),
                spool=NoSpool(),
                known_ids=known_ids,
                late_acks=self.metrics.late_acks,
                limits=WriterLimits(),
            ),
            encode=self.codec.encode,
            schemas=RECORDS,
            routing=RoutingTable(),
            partitions=PARTITIONS,
            instance="bench",
            ordinals=itertools.count(1),
            message_max_bytes=MESSAGE_MAX_BYTES,
        )
        source = Source("drx", "sandbox", drx_standard, StandardWebhooks(), FixedSecrets(self.keys))
        self.webhooks = Webhooks(
            sources={"drx": source},
            deduplicator=Deduplicator(publisher=self.publisher, known_ids=known_ids, deadline_s=4),
            admission=Admission(count_max=1024, bytes_max=2**26),
            observations=self.observe,
            body_max_bytes=2**18,
            newest=NewestBodies({}, now=time.time),
        )
        self.source = source
        self.heads = [read_heads(each.raw_headers, HEAD_RULES) for each in self.http]
        self.calls = [Call(each) for each in self.http]
        with asyncio.Runner() as runner:
            runner.run(self._prove())
        self.deliveries: list[Delivery] = [each.delivery for each in self.calls]
        self.documents: list[Any] = [parse(each.body) for each in self.deliveries]
        self.mapped: list[Any] = [
            drx_standard.map(each, document) for each, document in zip(self.deliveries, self.documents, strict=True)
        ]
        self.records = [
            self.publisher._event(mapped.events[0], each)
            for mapped, each in zip(self.mapped, self.deliveries, strict=True)
        ]

    async def _prove(self) -> None:
        received_at = datetime.fromtimestamp(self.now, UTC)
        for call in self.calls:
            call.received_s, call.received_at = self.now, received_at
            self.webhooks._check_head(call)
            self.webhooks._prove(call)

    def stages(self) -> dict[str, Callable[[int], object]]:
        """Name to what is done for delivery number so and so."""
        http, heads, deliveries, mapped = self.http, self.heads, self.deliveries, self.mapped
        calls = self.calls
        for call, outcome in zip(calls, mapped, strict=True):
            call.outcome = outcome
        source = self.source
        return {
            "head": lambda n: check_content(read_heads(http[n].raw_headers, HEAD_RULES), size_max=2**18),
            "verify": lambda n: source.scheme.prove(Raw(heads[n], http[n].body), self.keys, self.now),
            "sha256": lambda n: sha256(http[n].body).hexdigest(),
            "trace": lambda n: trace_of(heads[n]),
            "parse": lambda n: parse(http[n].body),
            "map": lambda n: drx_standard.map(deliveries[n], self.documents[n]),
            "encode": lambda n: self.codec.encode(RECORDS[mapped[n].events[0].type], mapped[n].events[0].value),
            "parse, map, encode: the engine": partial(self._encode, engine("drx", "sandbox")),
            "record (with encode)": lambda n: self.publisher._event(mapped[n].events[0], deliveries[n]),
            "metrics": self._count,
            "log line": lambda n: log.info(
                "delivery.accepted",
                source="drx",
                event_id=deliveries[n].id,
                record_key=mapped[n].events[0].key,
                event_type=mapped[n].events[0].type,
                duration_ms=1.23,
            ),
            "accept (metrics, log line, answer)": lambda n: self.webhooks._accept(calls[n], "accepted"),
            "answer": lambda n: Answer(200, b'{"outcome":"accepted","id":"%b"}' % deliveries[n].id.encode()),
        }

    def _encode(self, engine: Engine, number: int) -> None:
        delivery = self.deliveries[number]
        assert engine(delivery.body, delivery.id, delivery.received_at) is not None

    def _count(self, number: int) -> None:
        mapped: Mapped = self.mapped[number]
        self.observe.verified("drx", slot="current", offset_s=0.1, size=1000)
        self.observe.taken(self.deliveries[number], mapped, written_s=0.01)
        self.observe.answered("accepted", "", 0.01, self.calls[number])

    async def enqueue(self) -> None:
        """Publish all as one burst to a producer that costs nothing."""
        futures = [self.publisher._writers.enqueue([record]) for record in self.records]
        for each in futures:
            await each

    async def handle(self) -> None:
        """Answer all as one burst."""
        for each in self.http:
            each.answered = asyncio.Event()
        self.webhooks.take(self.http)
        for each in self.http:
            await each.answered.wait()


def run(console: Console) -> None:
    """Print the least of several repeats for each stage, in microseconds per delivery."""
    shown = Table("stage", "µs per delivery", title="one delivery, each stage alone, without HTTP and without Kafka")
    with tempfile.TemporaryFile("w") as file:
        # The log goes to a file, as in the other bench.
        stdout, sys.stdout = sys.stdout, file
        try:
            configure_logging(level="info", style="json", id_key=bytes(32))
            bench = Bench()
            rows = {name: _least_us(stage) for name, stage in bench.stages().items()}
            with asyncio.Runner() as runner:
                rows["enqueue and settle"] = _burst_us(runner, bench.enqueue)
                rows["handle, everything"] = _burst_us(runner, bench.handle)
        finally:
            sys.stdout = stdout
    for name, cost in rows.items():
        shown.add_row(name, f"{cost:.1f}")
    console.print(shown)


def _least_us(stage: Callable[[int], object]) -> float:
    def all_of_them() -> None:
        for number in range(DELIVERIES):
            stage(number)

    return min(timeit.repeat(all_of_them, number=1, repeat=REPEATS)) / DELIVERIES * 1e6


def _burst_us(runner: asyncio.Runner, burst: Callable[[], Any]) -> float:
    return min(timeit.repeat(partial(lambda: runner.run(burst())), number=1, repeat=REPEATS)) / DELIVERIES * 1e6
