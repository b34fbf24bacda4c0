"""`drx-bridge spool aside`: show the records that Kafka refused permanently, deliver them, or discard a lost key."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import click
import orjson

from bridge.commands.spool import described, path_options, paths_of
from bridge.commands.spool_drain import LOOK_S, checked_settings, patience_option, run_with
from bridge.errors import ConfigError, NotDurableError
from bridge.kafka.accepted import from_entry
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import INTERRUPTED
from bridge.spool.disk import DAMAGED, LOST_SUFFIX, Disk, code_of, write_whole
from bridge.spool.inspect import survey
from bridge.spool.keys import KeyRing
from bridge.spool.segment import UnreadableEntryError
from bridge.spool.set_aside import DIRECTORY, Aside, forget, names_of, read_aside

if TYPE_CHECKING:
    from bridge.app import Durability


class PutBack:
    """A worker that writes records set aside to Kafka, removes the file of each acknowledged one, and ends.

    `codes` maps the name of each record to why it is still set aside; empty once Kafka has it.
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

    def beside(self, parts: Durability) -> Self:
        """Return this worker, to run with the writers to Kafka."""
        self.parts = parts
        return self

    async def run(self, stop: asyncio.Event) -> None:
        """Deliver the records in the order of acceptance, until `stop` is set."""
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
            forget(self._disk, self._directory, aside.name)
        except UnreadableEntryError:
            return "unknown_layout"
        except NotDurableError as exc:
            return exc.code
        except OSError as exc:  # it is in Kafka, and its file is left
            return code_of(exc)
        return ""


@click.command()
@path_options
@audit_options
@click.option("--put-back", is_flag=True, help="Deliver NAMES, or all, and remove their files.")
@click.option("--lost-key", metavar="ID", help="Never deliver the records of this key: move them to `damaged/`.")
@patience_option
@click.argument("names", nargs=-1)
def aside(
    *,
    directory: Path | None,
    key_dir: Path | None,
    as_json: bool,
    put_back: bool,
    lost_key: str | None,
    patience_s: float,
    names: tuple[str, ...],
    actor: str,
    reason: str,
) -> int:
    """Show the records that Kafka refused permanently; --put-back writes them to Kafka, exit 1 if one is left.

    Works while a process has the spool open; uses the same settings. --put-back and --lost-key need --reason.
    """
    directory, key_dir = paths_of(directory, key_dir)
    keys, disk = KeyRing(key_dir), Disk()
    keys.load()
    if (put_back or lost_key) and not reason.strip():
        raise ConfigError("--reason is required: it is written to the audit line")
    if lost_key:
        kept = _sealed_with(lost_key, disk, directory, keys)
        with audited("spool.lost-key", actor=actor, reason=reason, directory=str(directory), key=lost_key, names=kept):
            _give_up(lost_key, disk, directory, kept)
        click.echo("recorded: the process that has the spool open, or the next start, acts on it", err=True)
        return 0
    if put_back:
        wanted = sorted(names or names_of(disk, directory))
        if unknown := set(wanted).difference(names_of(disk, directory)):
            raise ConfigError(f"{directory}: nothing of that name is set aside: {', '.join(sorted(unknown))}")
        asides = [read_aside(disk, directory, name, keys.decrypting) for name in wanted]
        with audited("spool.put-back", actor=actor, reason=reason, directory=str(directory), names=wanted) as ended:
            return _put_back(PutBack(directory, asides, patience_s=patience_s), ended, as_json=as_json)
    documents = [each for each in described(disk, directory, keys.decrypting) if not names or each["name"] in names]
    if as_json:
        click.echo(orjson.dumps(documents))
    for each in () if as_json else documents:
        click.echo("  ".join(str(value) for value in each.values()))
    return 0


def _sealed_with(lost: str, disk: Disk, directory: Path, keys: KeyRing) -> list[str]:
    """Return the names of set-aside records of a lost key; `ConfigError` if it exists or has encrypted nothing."""
    if lost in map(bytes.hex, keys.decrypting):
        raise ConfigError(f"key {lost} is in {keys.directory}: the records that it encrypted will be delivered")
    kept = [each["name"] for each in described(disk, directory, {}) if each["key"] == lost]
    if not kept and not any(lost in map(bytes.hex, each.keys) for each in survey(directory, {}, read=from_entry)):
        raise ConfigError(f"{directory}: nothing is encrypted with key {lost}; see `drx-bridge spool status`")
    return kept


def _give_up(lost: str, disk: Disk, directory: Path, names: Iterable[str]) -> None:
    disk.make_directory(directory / DAMAGED)
    for name in names:
        disk.rename(directory / DIRECTORY / name, directory / DAMAGED / name)
    write_whole(disk, directory / f"{lost}{LOST_SUFFIX}", b"")


def _put_back(work: PutBack, ended: dict[str, Any], *, as_json: bool) -> int:
    settings = checked_settings()
    settings = settings.model_copy(update={"spool": settings.spool.model_copy(update={"enabled": False})})
    interrupted = asyncio.run(run_with(settings, work.beside))
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
