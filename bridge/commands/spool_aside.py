"""`drx-bridge spool aside`: show the records that Kafka refused permanently, or deliver them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import orjson

from bridge.commands.spool import described, path_options, paths_of
from bridge.commands.spool_drain import LOOK_S, checked_settings, opened
from bridge.errors import ConfigError, NotDurableError
from bridge.kafka.accepted import from_entry
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.lifecycle import run_workers, stop_on_signals
from bridge.runtime.logging import silence_kafka_client
from bridge.runtime.process import INTERRUPTED, FloatRange
from bridge.settings import Settings
from bridge.spool.disk import Disk
from bridge.spool.keys import KeyRing
from bridge.spool.segment import UnreadableEntryError
from bridge.spool.set_aside import Aside, forget, names_of, read_aside

if TYPE_CHECKING:
    from bridge.app import Durability


class PutBack:
    """A worker that writes records set aside to Kafka, removes the file of each acknowledged one, and ends.

    `codes` maps the name of each record to why it is still set aside; empty once delivered.
    """

    def __init__(
        self, directory: Path, asides: Iterable[Aside], *, patience_s: float, disk: Disk | None = None
    ) -> None:
        self._directory = directory
        self._disk = disk or Disk()
        self._asides = list(asides)
        self._patience_s = patience_s
        self.codes = dict.fromkeys([each.name for each in self._asides], "kafka_unavailable")
        self.parts: Durability

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver them in the order of acceptance, until `stop` is set."""
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + self._patience_s
        # First find out which records are in the topics already.
        while not (self.parts.producer.ready and self.parts.known_ids.finished):
            if stop.is_set() or loop.time() > ends_at:
                return
            await asyncio.sleep(LOOK_S)
        for aside in self._asides:
            if stop.is_set():
                return
            self.codes[aside.name] = await self._deliver(aside)

    async def _deliver(self, aside: Aside) -> str:
        if isinstance(aside.entry, str):
            return aside.entry
        try:
            accepted = from_entry(aside.entry)
            if (same := self.parts.known_ids.in_topic(accepted.identity)) is False:
                return "id_conflict"
            if not same:
                await self.parts.writers.enqueue([accepted])
        except UnreadableEntryError:
            return "unknown_layout"
        except NotDurableError as exc:
            return exc.code
        forget(self._disk, self._directory, aside.name)
        return ""


@click.command()
@path_options
@audit_options
@click.option("--put-back", is_flag=True, help="Deliver NAMES, or all, and remove their files.")
@click.option(
    "--patience",
    "patience_s",
    type=FloatRange(0, 86_400, min_open=True),
    default=60.0,
    show_default=True,
    help="Give up after this many seconds without Kafka.",
)
@click.argument("names", nargs=-1)
def aside(
    *,
    directory: Path | None,
    key_dir: Path | None,
    as_json: bool,
    put_back: bool,
    patience_s: float,
    names: tuple[str, ...],
    actor: str,
    reason: str,
) -> int:
    """Show the records that Kafka refused permanently; --put-back writes them to Kafka, exit 1 if one is left.

    Works while a process has the spool open; uses the same settings. --put-back needs --reason.
    """
    directory, key_dir = paths_of(directory, key_dir)
    silence_kafka_client()
    keys, disk = KeyRing(key_dir), Disk()
    keys.load()
    if put_back:
        if not reason.strip():
            raise ConfigError("give --reason: it is kept in the audit line")
        wanted = sorted(names or names_of(disk, directory))
        asides = [read_aside(disk, directory, name, keys.opening) for name in _checked(disk, directory, wanted)]
        with audited("spool.put-back", actor=actor, reason=reason, directory=str(directory), names=wanted) as ended:
            return _put_back(PutBack(directory, asides, patience_s=patience_s), ended, as_json=as_json)
    documents = [each for each in described(disk, directory, keys.opening) if not names or each["name"] in names]
    if as_json:
        click.echo(orjson.dumps(documents))
    for each in () if as_json else documents:
        click.echo("  ".join(str(value) for value in each.values()))
    return 0


def _checked(disk: Disk, directory: Path, names: Sequence[str]) -> Sequence[str]:
    if unknown := set(names).difference(names_of(disk, directory)):
        raise ConfigError(f"{directory}: nothing of that name is set aside: {', '.join(sorted(unknown))}")
    return names


def _put_back(work: PutBack, ended: dict[str, Any], *, as_json: bool) -> int:
    settings = checked_settings()
    settings = settings.model_copy(update={"spool": settings.spool.model_copy(update={"enabled": False})})
    interrupted = asyncio.run(_run(settings, work))
    left = {name: code for name, code in work.codes.items() if code}
    delivered = len(work.codes) - len(left)
    ended.update(left=left)
    if interrupted or left:
        ended.update(outcome="interrupted" if interrupted else "failed")
    if as_json:
        click.echo(orjson.dumps({"ok": not left, "delivered": delivered, "left": left}))
    else:
        click.echo("\n".join([f"{delivered} delivered", *(f"{name}: {code}" for name, code in left.items())]), err=True)
    return INTERRUPTED if interrupted else int(bool(left))


async def _run(settings: Settings, work: PutBack) -> bool:
    """Return whether it was interrupted."""
    stop = asyncio.Event()
    signals = stop_on_signals(stop)
    async with opened(settings, stop) as parts:
        if parts is not None:
            work.parts = parts
            await run_workers([*parts.workers, work], stop=stop, drain_timeout_s=settings.shutdown.flush_s)
    return bool(signals)
