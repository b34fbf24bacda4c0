"""`drx-bridge spool set-aside` and `put-back`: past a record that Kafka refuses for good, and back to it."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson
from prometheus_client import CollectorRegistry

from bridge.commands.spool_options import path_options, paths_of
from bridge.errors import ConfigError
from bridge.kafka.partition_writer import from_entry
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.logging import log_errors_to_stderr
from bridge.runtime.metrics import IngressMetrics
from bridge.runtime.process import FloatRange
from bridge.spool.disk import FILE_MODE, is_locked
from bridge.spool.segment import Entry, Partition
from bridge.spool.set_aside import DONE, NOTHING_THERE, OUTCOME, REQUEST, Verb
from bridge.spool.store import Spool

LOOK_S = 0.1
# A process that has claimed a request only copies records until its outcome.
OUTCOME_S = 60.0
# Nothing is appended here, so no capacity is too small; this is that of the settings unless they say another.
CAPACITY_BYTES = 10_737_418_240
NOT_TAKEN_UP, UNKNOWN = "not_taken_up", "unknown"
_SAYS = {
    DONE: "done",
    NOTHING_THERE: "there is no such record",
    NOT_TAKEN_UP: "nothing was done: in this time Kafka has not refused the first record of that partition",
    UNKNOWN: "it was taken up, and how it ended is not known: see `drx-bridge spool status`",
}

_patience = click.option(
    "--patience",
    "patience_s",
    type=FloatRange(0, 86_400, min_open=True),
    default=60.0,
    show_default=True,
    help="Withdraw the request after this many seconds.",
)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for, where, by whom, why, and for how long."""

    verb: Verb
    directory: Path
    key_dir: Path
    actor: str
    reason: str
    patience_s: float
    partition: Partition = ("", 0)
    forced: bool = False
    names: Sequence[str] = ()

    def document(self) -> bytes:
        """Return the content of the request's file."""
        fields = ("verb", "partition", "forced", "names", "actor", "reason")
        asked = {name: getattr(self, name) for name in fields}
        # Later than it is withdrawn: the process that finds it expired removes it, as if it had been taken up.
        return orjson.dumps(asked | {"expires_at": time.time() + self.patience_s + OUTCOME_S})


@click.command(name="set-aside")
@path_options
@audit_options
@_patience
@click.option("--topic", required=True)
@click.option("--partition", type=click.IntRange(0, 2**31 - 1), required=True)
@click.option(
    "--force", is_flag=True, help="Even if Kafka has not refused the record, or no process has the spool open."
)
def set_aside(
    *, directory: Path | None, key_dir: Path | None, as_json: bool, topic: str, partition: int, force: bool, **who: Any
) -> int:
    """Set the first record of a partition aside, so that those behind it go on; exit 1 if that is not done.

    The process that has the spool open does it when Kafka refuses the record the next time, and keeps the record in the
    spool's directory, sealed, with who wanted that and why; `put-back` has it delivered. --reason is required.
    """
    directory, key_dir = paths_of(directory, key_dir)
    if not force and not is_locked(directory):
        msg = (
            f"{directory}: no process has this spool open, so that nobody knows what Kafka refuses; "
            "start one or run `drx-bridge spool drain` meanwhile, or give --force"
        )
        raise ConfigError(msg)
    wanted = Wanted("set_aside", directory, key_dir, partition=(topic, partition), forced=force, **who)
    return _ask(wanted, as_json=as_json, topic=topic, partition=partition, forced=force)


@click.command(name="put-back")
@path_options
@audit_options
@_patience
@click.argument("names", nargs=-1)
def put_back(*, directory: Path | None, key_dir: Path | None, as_json: bool, names: tuple[str, ...], **who: Any) -> int:
    """Put back records that were set aside: NAMES from `spool status`, or all; exit 1 if one is not.

    They come behind what waits now. --reason is required.
    """
    directory, key_dir = paths_of(directory, key_dir)
    wanted = Wanted("put_back", directory, key_dir, names=names, **who)
    return _ask(wanted, as_json=as_json, asked=list(names))


def _ask(wanted: Wanted, *, as_json: bool, **what: Any) -> int:
    if not wanted.reason.strip():
        msg = "give --reason: it is kept with the record and in the audit line"
        raise ConfigError(msg)
    log_errors_to_stderr()
    verb = f"spool.{wanted.verb.replace('_', '-')}"
    directory = str(wanted.directory)
    with audited(verb, actor=wanted.actor, reason=wanted.reason, directory=directory, **what) as ended:
        document = _serve(wanted)
        code = document["outcome"]
        ended.update(names=document["names"], **({} if code == DONE else {"outcome": "failed", "code": code}))
    if as_json:
        click.echo(orjson.dumps({"ok": code == DONE, **document}))
    else:
        said = _SAYS.get(code, f"nothing was done: {code}")
        click.echo(f"{said}: {', '.join(document['names'])}" if document["names"] else said, err=True)
    return int(code != DONE)


def _serve(wanted: Wanted) -> dict[str, Any]:
    """Leave a request and wait for its outcome; take it back when that is too long."""
    path = wanted.directory / f"{secrets.token_hex(16)}{REQUEST}"
    _write(path, wanted.document())
    patience_s = wanted.patience_s
    outcome = path.with_suffix(OUTCOME)
    try:
        if not is_locked(wanted.directory):
            asyncio.run(_serve_here(wanted))
            patience_s = 0.0
        document = _wait(outcome, patience_s)
    except BaseException:  # an operator who interrupts it expects nothing to be done afterwards
        path.unlink(missing_ok=True)
        raise
    if document is None:
        try:
            path.unlink()
        except FileNotFoundError:
            document = _wait(outcome, OUTCOME_S) or {"outcome": UNKNOWN, "names": []}
        else:
            return {"outcome": NOT_TAKEN_UP, "names": []}
    outcome.unlink(missing_ok=True)
    return document


class _NoDrain:
    """Sends nothing on; only what this version can read enters the spool."""

    def recovered(self, entry: Entry) -> None:
        """Read the entry as a drain would."""
        from_entry(entry)

    def passed_over(self) -> None:
        """Know nothing of what is only spooled."""


async def _serve_here(wanted: Wanted) -> None:
    """Serve the request in this process, since no other has the spool open."""
    spool = Spool(
        directory=wanted.directory,
        key_dir=wanted.key_dir,
        capacity_bytes=CAPACITY_BYTES,
        metrics=IngressMetrics(CollectorRegistry()),
    )
    try:
        await spool.open(_NoDrain())
        if spool.is_open:
            await spool.tend()
            await spool.set_aside(wanted.partition, refused="")
    finally:
        await spool.close()


def _write(path: Path, content: bytes) -> None:
    """Make the file whole under its name, and readable for the process, which may be another user than an operator."""
    part = path.with_suffix(".part")
    handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.write(handle, content)
        if os.geteuid() == 0:
            owner = path.parent.stat()
            os.fchown(handle, owner.st_uid, owner.st_gid)
    finally:
        os.close(handle)
    part.rename(path)


def _wait(outcome: Path, timeout_s: float) -> dict[str, Any] | None:
    until = time.monotonic() + timeout_s
    while True:
        try:
            return dict(orjson.loads(outcome.read_bytes()))
        except FileNotFoundError:
            if time.monotonic() >= until:
                return None
        time.sleep(LOOK_S)
