"""A host of the ingress and the processes on it: the real code of `bridge` on simulated seams."""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from math import inf
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from bridge.app import Durability, Seams, build_sources, build_webhooks, open_durability, with_fast_paths
from bridge.ingress.call import Source
from bridge.ingress.webhooks import Webhooks
from bridge.kafka.routing import RoutingTable
from bridge.proof.scheme import KeySlot
from bridge.runtime.http_server import Response
from bridge.runtime.lifecycle import run_workers
from bridge.runtime.metrics import IngressMetrics
from bridge.settings import Settings
from tests.builders import codec
from tests.simulation.dialects import WINDOW_S, Variant, slots, sources
from tests.simulation.disk import InlineThread, SimulatedDisk
from tests.simulation.kafka import Connection, Kafka
from tests.simulation.loop import Process
from tests.simulation.world import Clock, World

SPOOL = Path("/spool")


def settings_of(name: str, variant: Variant, partitions: int, key_dir: Path, *, spooling: bool = True) -> Settings:
    """Return the settings of a host."""
    given: dict[str, Any] = {
        "instance": name,
        "kafka": {"partitions": partitions},
        "sources": sources(variant),
        "dedupe": {"capacity": 20_000},
        "spool": {"enabled": spooling, "dir": SPOOL, "key_dir": key_dir, "capacity_bytes": 2_097_152},
    }
    return Settings(**given)


@cache
def compiled(variant: Variant) -> Mapping[str, Source]:
    """Build the sources once: they are pure, except for their secrets and counters."""
    return with_fast_paths(build_sources(settings_of("any", variant, 1, Path("/")), {}))


@dataclass
class Held:
    """The secrets of a source on a host, which an operator may replace."""

    keys: tuple[KeySlot, ...]


class Request:
    """A request to the public port for `Webhooks`; the response goes to the client if it is still connected."""

    __slots__ = (
        *("_answered", "began", "body", "head_first", "headers", "method", "note"),
        *("path", "port", "raw_headers", "raw_path", "remote"),
    )

    def __init__(
        self,
        path: str,
        headers: Mapping[str, str],
        body: bytes,
        answered: Callable[[Response], None],
        *,
        head_first: bool = False,
    ) -> None:
        self.method = "POST"
        self.raw_path = self.path = path
        self.headers = headers
        self.raw_headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self.body = body
        self.began = 0.0
        self.remote = "192.0.2.7"
        self.head_first = head_first
        self.port: Port | None = None
        self.note: Any = None
        self._answered = answered

    def trust(self) -> None:
        """There are no connections here."""

    def invite(self) -> None:
        """The body has arrived."""

    def respond(self, response: Response) -> None:
        if self.port is not None:
            self.port.answered()
        self._answered(response)

    def fail(self, exc: BaseException) -> None:
        raise exc


class Port:
    """A worker instead of the HTTP server: handles requests of one turn of the loop together."""

    def __init__(self, webhooks: Webhooks, drain_s: float) -> None:
        self._webhooks = webhooks
        self._drain_s = drain_s
        self._arrived: list[Request] = []
        self._open = 0
        self._idle = asyncio.Event()
        self.closed = False

    def arrive(self, request: Request, process: Process) -> None:
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._turn, context=process.context)
        self._arrived.append(request)
        request.port = self
        self._open += 1

    def _turn(self) -> None:
        arrived, self._arrived = self._arrived, []
        taken = []
        for each in arrived:
            refused = self._webhooks.check(each) if each.head_first else None  # type: ignore[arg-type]  # stands where a request stands
            if refused is None:
                taken.append(each)
            else:
                each.respond(refused)
        for at in range(0, len(taken), 16):
            self._webhooks.take(taken[at : at + 16])  # type: ignore[arg-type]  # as above

    def answered(self) -> None:
        self._open -= 1
        if not self._open:
            self._idle.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`, then finish the requests in progress."""
        await stop.wait()
        self.closed = True
        if self._open:
            self._idle.clear()
            try:
                async with asyncio.timeout(self._drain_s):
                    await self._idle.wait()
            except TimeoutError:
                return


@dataclass(eq=False)
class Host:
    """One replica: its disk and its clock are kept when its process ends."""

    name: str
    world: World
    kafka: Kafka
    key_dir: Path
    partitions: int
    disk: SimulatedDisk = field(init=False)
    clock: Clock = field(init=False)
    process: Process | None = None
    durability: Durability | None = None
    metrics: IngressMetrics | None = None
    port: Port | None = None
    draining: "asyncio.Future[None] | None" = None
    stopped: asyncio.Event | None = None
    pauses: list[tuple[float, float]] = field(default_factory=list)  # when its processes were frozen
    starts: int = 0
    ends: list[tuple[float, str]] = field(default_factory=list)  # when its processes ended, and how
    failures: list[str] = field(default_factory=list)
    wanted: Variant = "whole"  # how the next process is configured
    variant: Variant = "whole"  # how this one is
    set_aside_after_s: float = 600.0
    spooling: bool = True
    key_gone_at: float = inf  # loop time at which the keys of its spool were taken away
    secrets: dict[str, Held] = field(init=False)
    on_end: Callable[["Host", str], None] = lambda _host, _how: None

    def __post_init__(self) -> None:
        self.disk = SimulatedDisk(self.world, self.name)
        self.clock = Clock(self.world)
        self.secrets = {name: Held(slots(name, 0)) for name in sources("whole")}
        self.disk.on_kill = lambda _process: self.kill("in a call of the disk")

    @property
    def is_up(self) -> bool:
        """Whether its port accepts connections."""
        return self.port is not None and not self.port.closed

    @property
    def has_read(self) -> bool:
        """Whether its process has read the topics."""
        return self.durability is not None and self.durability.known_ids.finished

    @property
    def takes(self) -> bool:
        """Whether its spool accepts entries."""
        return self.durability is not None and not self.durability.spool.code

    @property
    def keys_at(self) -> Path:
        """The directory of its spool keys."""
        return self.key_dir if self.key_gone_at == inf else self.key_dir.with_name(self.key_dir.name + ".away")

    def stood_still(self, begun: float, ended: float) -> bool:
        """Return whether its process was frozen for some of a time."""
        return any(start <= ended and begun <= end for start, end in self.pauses)

    @property
    def has_aside(self) -> bool:
        """Whether records are set aside on its disk."""
        return any(path.parent.name == "set-aside" for path in self.disk.files)

    @property
    def failing(self) -> bool:
        """Whether only another start can read its spool: the disk had failed, or a key was missing."""
        held = getattr(self.durability.spool, "held", None) if self.durability else None
        return held is not None and bool(held.unread or held.locked)

    def start(self) -> None:
        """Start a process, unless one runs, or a command has its spool."""
        if self.process is not None or (self.draining is not None and not self.draining.done()):
            return
        self.starts += 1
        self.variant = self.wanted
        process = self.process = Process(self.world.loop, f"{self.name}.{self.starts}")
        self.world.note(self.name, "started")
        task = self.world.loop.create_task(self._main(), context=process.context)
        task.add_done_callback(partial(self._ended, process), context=self.world.context)

    def kill(self, how: str = "") -> None:
        """End the process as SIGKILL does."""
        if self.process is None:
            return
        self.world.note(self.name, "killed", how)
        self.process.end()
        self._forget("killed")

    def cut_power(self) -> None:
        """End the process and the host, whose disk keeps synced data."""
        self.world.note(self.name, "power cut")
        if self.process is not None:
            self.process.end()
        self._forget("power cut")
        self.disk.cut_power()

    def stop(self) -> None:
        """Stop the process as SIGTERM does."""
        if self.process is not None and self.stopped is not None:
            self.world.note(self.name, "stopping")
            stopped = self.stopped
            self.world.loop.call_soon(stopped.set, context=self.process.context)

    def _forget(self, how: str) -> None:
        self.ends.append((self.world.loop.time(), how))
        self.process = self.durability = self.port = self.stopped = None
        self.on_end(self, how)

    def _ended(self, process: Process, task: asyncio.Task[None]) -> None:
        if process is not self.process:
            return
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            self.failures.append(repr(failure))
        self.world.note(self.name, "ended", type(failure).__name__ if failure else "")
        process.end()
        self._forget("ended")

    async def _main(self) -> None:
        """Do as `open_ingress` and `run_service` do, without sockets."""
        settings = settings_of(self.name, self.variant, self.partitions, self.key_dir, spooling=self.spooling)
        seams = Seams(
            now=self.clock.now,
            now_ns=self.clock.now_ns,
            disk=self.disk,
            thread=partial(InlineThread, self.disk),
            connection=Connection(kafka=self.kafka, host=self.name),
        )
        metrics = IngressMetrics(CollectorRegistry())
        built = {name: replace(each, secrets=self.secrets[name]) for name, each in compiled(self.variant).items()}
        opening = open_durability(
            settings,
            routing=RoutingTable(settings.kafka.routes),
            encode=codec().encode,
            windows_s=dict.fromkeys(built, float(WINDOW_S)),
            metrics=metrics,
            set_aside_after_s=self.set_aside_after_s,
            seams=seams,
        )
        async with AsyncExitStack() as stack:
            durability = await stack.enter_async_context(opening)
            webhooks = build_webhooks(settings, built, durability, metrics, now=self.clock.now)
            port = Port(webhooks, settings.shutdown.drain_s)
            self.durability, self.metrics, self.port, self.stopped = durability, metrics, port, asyncio.Event()
            await run_workers(
                [port, *durability.workers], stop=self.stopped, drain_timeout_s=settings.shutdown.drain_s + 1
            )
