"""Audit lines of privileged commands: who did what, when and why; JSON on standard error before and after.

    with audited("spool.drain", directory=str(directory)) as ended:
        ended["drained"] = drain(…)

Events are identified by topic, partition and offset, never by their key, which is a prescription id.
"""

import contextlib
import getpass
import os
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click
import orjson

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.process import combined

# Names an additional file for the lines; `/proc/1/fd/2` is the log of the pod.
VARIABLE = "DRX_AUDIT_FILE"
STDERR = 2


def operator_name() -> str:
    """Return the user name, or the uid if it has no name, as in a container."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid-{os.getuid()}"


def _text(_context: click.Context, _parameter: click.Parameter, given: str) -> str:
    """Refuse a string that is not UTF-8, from a terminal with another encoding: JSON cannot hold it."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise click.BadParameter("must be UTF-8") from None
    return given


audit_options = combined(
    click.option("--reason", default="", callback=_text, help="Why; recorded in the audit line."),
    click.option("--actor", default=operator_name, callback=_text, help="Who; default: the user name."),
)


@contextlib.contextmanager
def audited(
    verb: str, *, actor: str | None = None, reason: str = "", dry_run: bool = False, **what: object
) -> Iterator[dict[str, Any]]:
    """Write a line before and after an action; entries of the yielded dict are added to the second line.

    The second line has `done`, `interrupted`, or `failed` with a code; a command that fails by its exit code sets
    `outcome`. A dry run writes no lines. `what` must not contain health information. Raises `ConfigError` if the first
    line cannot be written; then nothing has been done.
    """
    ended: dict[str, Any] = {}
    if dry_run:
        yield ended
        return
    line = {"verb": verb, "actor": actor or operator_name(), "reason": reason, **what}
    try:
        _write(line | {"outcome": "begun"})
    except OSError as exc:
        msg = f"{verb}: the audit line cannot be written (errno {exc.errno}); nothing was done: check {VARIABLE}"
        raise ConfigError(msg) from None
    outcome: dict[str, Any] = {"outcome": "done"}
    try:
        yield ended
    except BaseException as exc:
        outcome = _failure(exc)
        raise
    finally:
        with contextlib.suppress(OSError):  # the first line is written, and the action is over
            _write(line | outcome | ended)


def _failure(exc: BaseException) -> dict[str, Any]:
    if isinstance(exc, KeyboardInterrupt):
        return {"outcome": "interrupted"}
    return {"outcome": "failed", "code": exc.code if isinstance(exc, BridgeError) else type(exc).__name__}


def _write(line: dict[str, Any]) -> None:
    """Append a line with a single write to each destination; `OSError` if one fails."""
    known = {"event": "audit", "timestamp": datetime.now(UTC), "user": operator_name(), "host": socket.gethostname()}
    text = orjson.dumps(known | line, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z, default=str)
    path = os.environ.get(VARIABLE)
    if path:
        # Without waiting, as nothing may read the other end of a pipe.
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        try:
            _whole(file, text)
        finally:
            os.close(file)
    _whole(STDERR, text)


def _whole(file: int, text: bytes) -> None:
    while text:
        text = text[os.write(file, text) :]
