import asyncio
import random
import time
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import psutil

from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.faults.ingress.brokers import Brokers
from tests.faults.ingress.keys import Keys
from tests.faults.ingress.ledger import Ledger
from tests.faults.ingress.load import Load
from tests.faults.ingress.oracle import Logged
from tests.faults.ingress.proxy import NONE, Proxy, Trouble
from tests.faults.ingress.readers import Reader
from tests.integration.ingress_process import IngressProcess, header
from tests.integration.service_process import until

# Limits for a hang, not promises: the machine may be busy.
READY_S, DRAINED_S = 180.0, 600.0
# The second is as on an idle machine, with a few for connections that are about to be closed.
RSS_MAX_MIB, FDS_FACTOR, FDS_SPARE = 256.0, 1.2, 4
# Rate and duration of the load before the fault, so that most prescriptions have a history.
WARM_UP_RATE, WARM_UP_S = 300.0, 0.2
LOOK_S = 0.1
# Of the resident size.
WATCH_S = 0.25


@dataclass(frozen=True, slots=True)
class Tier:
    """Durations and rates of a tier."""

    factor: float  # multiplier of a row's fault durations and repetitions
    rate: float  # deliveries a second
    at_once: int  # prescriptions in progress at one time

    def times(self, number: int) -> int:
        return round(number * self.factor)


@dataclass(frozen=True, slots=True)
class Stage:
    brokers: Brokers
    postgres: str
    directory: Path


@dataclass
class Scene:
    """One row's bridge and its environment."""

    stage: Stage
    directory: Path  # everything that its processes write is below it
    topic: str
    ingress: IngressProcess
    keys: Keys
    ledger: Ledger
    load: Load
    rng: random.Random  # for faults; the load has another one, whose state depends on responses
    tier: Tier
    proxies: dict[int, Proxy]  # in front of each broker, if the row requires them
    reader: Reader | None
    fds: int = 0  # open files of the ingress without clients and before any fault
    recovery_s: float = 0.0  # from the end of the fault until full recovery
    sender_late_s: float = 0.0  # longest pause of the senders' loop, which may have delayed a response
    p99_calm_s: float = 0.0  # p99 latency before an attack
    p99_s: float = 0.0  # p99 latency during it
    rss_mib: float = 0.0
    _drained_at: float = 0.0
    leaks: list[str] = field(default_factory=list)
    log_before: list[Logged] = field(default_factory=list)  # records of a deleted topic
    excused: set[str] = field(default_factory=set)  # events whose records a test damaged on disk
    late: set[str] = field(default_factory=set)  # events damaged on disk and sent again, maybe after later ones
    unsettled: set[str] = field(default_factory=set)  # events that a killed process may have written unrecorded

    @property
    def brokers(self) -> Brokers:
        return self.stage.brokers

    async def lasting(self, seconds: float) -> None:
        await asyncio.sleep(seconds * self.tier.factor)

    async def warm_up(self) -> None:
        """Send some deliveries, and count the open files of the ingress after its clients have disconnected."""
        async with self.load.poisson(WARM_UP_RATE):
            await asyncio.sleep(WARM_UP_S)
        await self.settled(READY_S)
        self.fds = await asyncio.to_thread(self._fds)

    async def heal(self) -> None:
        """End every fault, and wait until everything accepted is in Kafka and a new delivery is accepted there.

        The recovery time starts when brokers and processes run again.
        """
        self.look_at_spool()
        self.make_trouble()
        await asyncio.to_thread(self.brokers.heal)
        began = time.monotonic()
        if not self.ingress.alive:
            self.ingress.start()
        await asyncio.to_thread(self.ingress.ready)
        await self.settled(DRAINED_S)
        self.recovery_s = max(self.recovery_s, time.monotonic() - began)

    def make_trouble(self, *, to_broker: Trouble = NONE, to_client: Trouble = NONE) -> None:
        """Set the trouble of every proxy, or end it."""
        for proxy in self.proxies.values():
            proxy.make_trouble(to_broker=to_broker, to_client=to_client)

    async def settled(self, within_s: float) -> None:
        async with asyncio.timeout(within_s), self.load.open():
            looked_at = time.monotonic()
            while (await self.load.probe()).status != 200 or await asyncio.to_thread(self.spooled) > 0:
                await asyncio.sleep(LOOK_S)
                looked_at = time.monotonic()
        self._drained_at = looked_at

    async def log(self) -> list[Logged]:
        return await logged(self.brokers.bootstrap_servers, self.topic, source=self.ingress.source)

    def look_at_spool(self) -> None:
        """Check every file of the spool before it is drained: none may contain plaintext."""
        for path in self.directory.rglob("spool/*"):
            with suppress(OSError):  # the bridge may be removing it
                if self.shown_in(path.read_bytes()):
                    self.leaks.append(path.name)

    def shown_in(self, content: bytes) -> bool:
        told = self.load.prescriptions
        return any(mark.encode() in content for mark in (told.mark, told.key_mark))

    def spooled(self) -> float:
        return self.ingress.metric("drxbridge_spool_events")

    async def calm_down(self) -> None:
        async with asyncio.timeout(READY_S):
            while await asyncio.to_thread(self._fds) > self.fds * FDS_FACTOR + FDS_SPARE:  # noqa: ASYNC110 - as above
                await asyncio.sleep(LOOK_S)

    async def watch(self) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        while True:
            self.sender_late_s = max(self.sender_late_s, loop.time() - due)
            with suppress(OSError, StopIteration):  # it may just be dead
                self.rss_mib = max(self.rss_mib, peak_rss_mib(self.ingress.pid))
            due = loop.time() + WATCH_S
            await asyncio.sleep(WATCH_S)

    async def rotate(self) -> None:
        taken_over = await asyncio.to_thread(self.reloads)
        before = self.keys.add()
        await asyncio.to_thread(until, lambda: self.reloads() > taken_over, what="a new key taken over")
        self.keys.use_newest()
        old = [each for each in self.ledger.attempts if each.ended_at == inf]  # signed with the one before
        while any(each.ended_at == inf for each in old):  # noqa: ASYNC110 - each ends in its sender's time
            await asyncio.sleep(WATCH_S)
        self.keys.remove(before)
        await asyncio.to_thread(until, lambda: self.reloads() > taken_over + 1, what="an old key dropped")

    def reloads(self) -> float:
        # Not those that failed: while a file is no key, each look at it is one.
        return self.ingress.metric("drxbridge_secret_reload_total", outcome="reloaded")

    async def cut_short(self) -> None:
        await self.kill()
        self.ingress.start()

    async def kill(self) -> None:
        await asyncio.to_thread(self.ingress.kill)
        self.died()

    def died(self) -> None:
        self.unsettled |= self.ledger.unsettled(time.monotonic(), drained_at=self._drained_at)

    def _fds(self) -> int:
        return int(psutil.Process(self.ingress.pid).num_fds())


async def logged(bootstrap_servers: str, *topics: str, source: str) -> list[Logged]:
    """All records of a source, each partition in order; those of parked deliveries too."""
    mark = ("ce_source", source.encode())
    connection = KafkaConnection(bootstrap_servers)
    async with open_reader(connection, [*topics, UNRECOGNIZED_TOPIC], from_beginning=True) as found:
        return [
            Logged(
                (record.topic, record.partition),
                record.offset,
                (record.key or b"").decode(),
                header(record, "ce_id"),
                header(record, "drx_body_sha256"),
                record.topic == UNRECOGNIZED_TOPIC,
                b"\n".join(content for name, content in record.headers if name != "ce_subject"),
            )
            async for record in found.until_end()
            if mark in record.headers
        ]


def peak_rss_mib(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))
