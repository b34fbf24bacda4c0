"""`drx-bridge spool drain`: deliver the records of a spool that no process uses any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click
import orjson
from prometheus_client import CollectorRegistry

from bridge.commands.spool import path_options, paths_of
from bridge.errors import ConfigError
from bridge.kafka.partition_writer import SET_ASIDE_AFTER_S
from bridge.kafka.routing import RoutingTable
from bridge.mapping.lookup import find_profile
from bridge.mapping.profile import dedupe_window_s
from bridge.process_checks import check_process
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.findings import refuse
from bridge.runtime.lifecycle import Worker, run_workers, stop_on_signals, unless
from bridge.runtime.process import INTERRUPTED, FloatRange
from bridge.settings import PREFIX, Settings, load_settings
from bridge.spool.disk import Disk, is_locked
from bridge.spool.recovery import segment_numbers
from bridge.spool.set_aside import names_of
from bridge.spool.store import Spool

if TYPE_CHECKING:
    from bridge.app import Durability

LOOK_S = 0.1
LOCKED = "locked"
patience_option = click.option(
    "--patience",
    "patience_s",
    type=FloatRange(0, 86_400, min_open=True),
    default=60.0,
    show_default=True,
    help="Stop after this many seconds without progress.",
)


@dataclass(slots=True)
class Drained:
    """Counts of records after a drain."""

    drained: int = 0  # events that were written to Kafka
    left: int = 0  # events that were not
    locked: int = 0  # records that cannot be opened
    blocked: int = 0  # partitions whose first record Kafka refuses
    damaged: int = 0  # damaged records, which were skipped
    unread: int = 0  # segments that the disk cannot read in full
    set_aside: int = 0  # records that Kafka refused permanently; deleting the directory would lose them

    @property
    def is_complete(self) -> bool:
        """True if every record was written to Kafka."""
        return not (self.left or self.locked or self.damaged or self.unread or self.set_aside)


class Watch:
    """A worker that ends when the spool is drained, or after too long without progress."""

    def __init__(self, parts: Durability, spool: Spool, *, patience_s: float) -> None:
        self._parts = parts
        self._spool = spool
        self._patience_s = patience_s
        self.outcome = Drained()

    async def run(self, stop: asyncio.Event) -> None:
        """Check progress until `stop` is set."""
        loop = asyncio.get_running_loop()
        before, moved_at = self._spool.held.events, loop.time()
        while not stop.is_set():
            held, drained = self._spool.held, self._parts.writers.drained
            # Finding out which records are in the topics already takes some time first.
            is_looking = self._parts.producer.ready and not self._parts.known_ids.finished
            if held.events != before or is_looking:
                moved_at = loop.time()
            before = held.events
            self.outcome = Drained(
                drained, held.events, held.locked, self._parts.writers.blocked, held.damaged, held.unread
            )
            if not held.events or loop.time() - moved_at > self._patience_s:
                return
            await asyncio.sleep(LOOK_S)


@click.command()
@path_options
@audit_options
@patience_option
def drain(
    *, directory: Path | None, key_dir: Path | None, as_json: bool, patience_s: float, actor: str, reason: str
) -> int:
    """Write the records of a spool to Kafka if no process has it open; exit 1 if any is left or set aside.

    Do not start an ingress on this spool before it ends: new events would reach Kafka before spooled ones. Run it with
    the settings of the ingress (Kafka, partitions, sources), so that it recognizes records that are already in their
    topics. A record that Kafka alone keeps refusing for half of --patience is set aside.
    """
    directory, key_dir = paths_of(directory, key_dir)
    settings = checked_settings()
    spool = settings.spool.model_copy(update={"enabled": True, "dir": directory, "key_dir": key_dir})
    if is_locked(directory):
        raise ConfigError(_refusal(directory, LOCKED))
    if segment_numbers(Disk(), directory):
        with audited("spool.drain", actor=actor, reason=reason, directory=str(directory)) as ended:
            work = _drain(settings.model_copy(update={"spool": spool}), patience_s=patience_s)
            outcome, interrupted = asyncio.run(work)
            outcome.set_aside = len(names_of(Disk(), directory))
            ended.update(asdict(outcome), **({"outcome": "interrupted"} if interrupted else {}))
    else:
        outcome, interrupted = Drained(set_aside=len(names_of(Disk(), directory))), False
    if as_json:
        click.echo(orjson.dumps({"ok": outcome.is_complete and not interrupted, **asdict(outcome)}))
    else:
        counts = ", ".join(f"{count:,} {name}" for name, count in asdict(outcome).items())
        click.echo(counts.replace("_", " "), err=True)
    return INTERRUPTED if interrupted else int(not outcome.is_complete)


def checked_settings() -> Settings:
    """Return the settings of the ingress; fail if they do not allow this connection to Kafka."""
    settings = load_settings()
    refuse(check_process(settings.kafka, settings.log, settings.accept, prefix=PREFIX))
    return settings


async def _drain(settings: Settings, *, patience_s: float) -> tuple[Drained, bool]:
    watches: list[Watch] = []

    def watch(parts: Durability) -> Watch:
        if not (isinstance(parts.spool, Spool) and parts.spool.is_open):
            raise ConfigError(_refusal(settings.spool.dir, parts.spool.code))
        watches.append(Watch(parts, parts.spool, patience_s=patience_s))
        return watches[0]

    interrupted = await run_with(settings, watch, set_aside_after_s=patience_s / 2)
    return watches[0].outcome if watches else Drained(), interrupted


async def run_with(
    settings: Settings, worker: Callable[[Durability], Worker], *, set_aside_after_s: float = SET_ASIDE_AFTER_S
) -> bool:
    """Run a worker with a producer and, if enabled, a spool; return whether it was interrupted."""
    from bridge.app import open_durability  # noqa: PLC0415 - half of the CPU of `--help`
    from bridge.runtime.metrics import IngressMetrics  # noqa: PLC0415 - as above

    metrics = IngressMetrics(CollectorRegistry())
    # Nothing is mapped here, so profiles are not built, and the files that their options name may be absent.
    windows_s = {
        name: source.dedupe_window_s or dedupe_window_s(find_profile(source.profile))
        for name, source in settings.sources.items()
    }
    opening = open_durability(
        settings,
        routing=RoutingTable(settings.kafka.routes),
        encode=_nothing,
        windows_s=windows_s,
        metrics=metrics,
        set_aside_after_s=set_aside_after_s,
    )
    stop = asyncio.Event()
    signals = stop_on_signals(stop)
    async with AsyncExitStack() as stack:
        # Reading from a failing disk may take long; an operator must be able to interrupt it.
        if parts := await unless(stop, stack.enter_async_context(opening)):
            await run_workers([*parts.workers, worker(parts)], stop=stop, drain_timeout_s=settings.shutdown.flush_s)
    return bool(signals)


def _refusal(directory: Path, code: str) -> str:
    if code == LOCKED:
        return f"{directory}: a process has this spool open and drains it"
    return f"{directory}: cannot be opened ({code}); run as the owner of its files"


def _nothing(_record: str, _value: Mapping[str, object] | bytes) -> bytes:
    raise NotImplementedError  # a drain publishes no new events
