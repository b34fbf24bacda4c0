"""Log JSON lines to standard output from a thread, so that an output which takes none costs lines and never an answer.

The queue is bounded, and what is dropped is counted. Ids are hashed here (`log_ids`), and what libraries log is reduced
to constants: no line holds a value.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import resource
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace
from typing import Any, Literal, TypeAlias

import orjson
import structlog

from bridge.runtime.log_ids import current_id_key, id_hash

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Innermost places of a bug that are logged; a line stays well under 8 KiB.
TRAIL_MAX = 20
# Lines that wait for the output at most: at 600 bytes each, 5 MB, and 4 s of 2,000 deliveries a second.
QUEUE_MAX = 8192
# The kernel writes this much to a pipe whole or not at all (pipe(7)): no kill or other writer tears a line.
WRITE_MAX = getattr(select, "PIPE_BUF", 512)
# Lines gather for this long once all are written: the thread is woken 20 times a second under load, at 150 µs each.
GATHER_S = 0.05
# What the end of a process waits for its last lines: less than half of the margin between a stop and the kill, 5 s.
FLUSH_S = 2.0
# Between two lines of one place in a library's code: a client that cannot log in has a hundred a second.
LIBRARY_EVERY_S = 1.0

# Level, Unix time and fields; rendered by the thread.
Line: TypeAlias = tuple[str, float, dict[str, Any]]


class LineWriter:
    """Write lines to a file descriptor in a thread; `put` neither waits nor raises.

    A line is dropped, and counted in `dropped`, if the queue is full or its write fails.
    """

    def __init__(self) -> None:
        # Both reentrant: garbage collection may run a finalizer that logs in the midst of `put`.
        self._queue: SimpleQueue[bytes | Line | threading.Event] = SimpleQueue()
        self._counting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._file = -1
        self._is_torn = self._takes = False
        self.dropped = self._reported = 0

    def open(self, file: int | None) -> None:
        """Write to `file` from now on, after what is queued for the former one; with None, drop all."""
        self.flush()
        self._file, self._is_torn = -1 if file is None else file, False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def put(self, line: bytes | Line) -> None:
        """Queue a line."""
        if self._file < 0 or self._queue.qsize() >= QUEUE_MAX:
            self._drop(1)
        else:
            self._queue.put(line)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all that is queued now is written or dropped; False when it takes longer."""
        reached = threading.Event()
        if self._thread is not None:
            self._queue.put(reached)
        return self._thread is None or reached.wait(timeout_s)

    def _run(self) -> None:
        batch = b""
        while True:
            if self._queue.empty():
                self._write(batch)
                batch = b""
                self._report()
                time.sleep(GATHER_S)
            item = self._queue.get()
            line = b"" if isinstance(item, threading.Event) else item if isinstance(item, bytes) else render(item)
            if not line or len(batch) + len(line) > WRITE_MAX:
                self._write(batch)
                batch = b""
            batch += line
            if isinstance(item, threading.Event):
                self._report()
                item.set()

    def _report(self) -> None:
        """Log how many lines are missing, once the output takes lines again."""
        missing = self.dropped - self._reported
        if missing and self._takes:
            self._write(render(("warning", time.time(), {"event": "worker.log_dropped", "lines": missing})))
            self._reported += missing if self._takes else 0

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        # What a failed write left of a line ends here, or the next line would be part of it.
        mend = b"\n" if self._is_torn else b""
        text, done = mend + lines, 0
        with contextlib.suppress(OSError):
            while done < len(text):
                try:
                    done += os.write(self._file, text[done:])
                except BlockingIOError:  # another program made it non-blocking
                    time.sleep(GATHER_S)
        if done:
            self._is_torn = text[done - 1 : done] != b"\n"
        self._takes = done == len(text)
        self._drop(text.count(b"\n", max(done, len(mend))))

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count


# One for the process: loggers that modules keep outlive a second configuration.
output = LineWriter()
_hash_id = id_hash(current_id_key(None))


def render(line: Line) -> bytes:
    """Return a line as JSON, ids hashed; a field that is no JSON costs the other fields and no other line."""
    level, at_s, fields = line
    head = {"event": fields.get("event"), "level": level, "timestamp": datetime.fromtimestamp(at_s, UTC)}
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    try:
        return orjson.dumps(_hash_ids(None, level, fields) | head, option=option)
    except Exception:  # noqa: BLE001 - a bug of ours, such as a lone surrogate, which must not end the thread
        return orjson.dumps(head | {"unloggable": [name for name in fields if name not in head]}, option=option)


class LibraryHandler(logging.Handler):
    """Reduces what the stdlib loggers of libraries log to constants; each place in their code logs once a second."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read the time in seconds from `now`."""
        super().__init__()
        self._now = now
        # By place in the code: when it was logged last, and how often it was left out since.
        self._logged: dict[tuple[str, int], tuple[float, int]] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Log where it came from, the constant template, and the exception's type."""
        place, now = (record.pathname, record.lineno), self._now()
        at, left_out = self._logged.get(place, (-math.inf, 0))
        if now - at < LIBRARY_EVERY_S:
            self._logged[place] = (at, left_out + 1)
            return
        self._logged[place] = (now, 0)
        failure = record.exc_info[0] if record.exc_info else None
        if failure is None and isinstance(record.args, tuple):
            failure = next((type(each) for each in record.args if isinstance(each, BaseException)), None)
        structlog.get_logger().log(
            record.levelno,
            "worker.library",
            logger=record.name,
            where=f"{record.module}:{record.lineno}",
            # A message without arguments may have been formatted already: only a template is known to be constant.
            template=record.msg if record.args and isinstance(record.msg, str) else "",
            code=failure.__name__ if failure else "",
            **({"left_out": left_out} if left_out else {}),
        )


def trail(exc: BaseException) -> list[str]:
    """Return where a bug happened, outermost call first: places in code only, since texts and locals carry values."""
    if isinstance(exc, BaseExceptionGroup):
        return [place for each in exc.exceptions for place in trail(each)]
    frames = traceback.extract_tb(exc.__traceback__)[-TRAIL_MAX:]
    return [*(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in frames), type(exc).__name__]


def configure_logging(*, level: str, style: Literal["auto", "json", "console"], id_key: bytes | None = None) -> None:
    """Set structlog and the stdlib loggers up, to write to the standard output of now, and hash ids with a key."""
    global _hash_id  # noqa: PLW0603 - as the output: one for the process
    file = _stdout()
    output.open(file)  # when what was logged before has been rendered
    _hash_id = id_hash(id_key or current_id_key(None))
    console = style == "console" or (style == "auto" and file is not None and os.isatty(file))
    # structlog's chain of processors takes four times as long as a line that the thread renders.
    put: Any = structlog.make_filtering_bound_logger(LEVELS[level]) if console else partial(_logger, LEVELS[level])
    structlog.configure(
        processors=_for_people() if console else [],
        wrapper_class=put,
        logger_factory=lambda *_: SimpleNamespace(**dict.fromkeys([*LEVELS, "critical"], _put_text)),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[LibraryHandler()], force=True)


def keep_values_in() -> None:
    """Log uncaught exceptions by location only and disable core dumps: both could leak values."""
    sys.excepthook = lambda _kind, exc, _trace: _log_uncaught(exc)
    threading.excepthook = lambda unhandled: _log_uncaught(unhandled.exc_value)
    sys.unraisablehook = lambda unraisable: _log_uncaught(unraisable.exc_value)
    logging.captureWarnings(capture=True)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # Of 1 byte there is no file, and Linux takes just this limit for "no program either" (fs/coredump.c).
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def log_errors_to_stderr() -> None:
    """Log only errors, to standard error, for people: for a command."""
    structlog.configure(
        processors=_for_people(colors=sys.stderr.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    silence_kafka_client()


def silence_kafka_client() -> None:
    """Silence aiokafka's own logger: a command reports what is unreachable itself."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _logger(least: int, *_: object, **_unused: object) -> SimpleNamespace:
    """Return a logger that queues lines of level `least` or above."""

    def log(level: int, event: str, **fields: Any) -> None:
        if level >= least:
            fields["event"] = event
            output.put((logging.getLevelName(level).lower(), time.time(), fields))

    return SimpleNamespace(log=log, **{name: partial(log, number) for name, number in LEVELS.items()})


def _put_text(lines: str) -> None:
    output.put(f"{lines}\n".encode(errors="backslashreplace"))


def _log_uncaught(exc: BaseException | None) -> None:
    structlog.get_logger().error("worker.uncaught", where=[] if exc is None else trail(exc))


def _hash_ids(_logger: object, _level: str, fields: dict[str, Any]) -> dict[str, Any]:
    # A delivery about several prescriptions has several keys; a key has no space in it.
    if event_id := fields.get("event_id"):
        fields["event_id"] = _hash_id(event_id)
    if keys := fields.get("record_key"):
        fields["record_key"] = " ".join(map(_hash_id, keys.split(" ")))
    return fields


def _for_people(*, colors: bool = True) -> list[Any]:
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [_hash_ids, structlog.processors.add_log_level, stamp, structlog.dev.ConsoleRenderer(colors=colors)]


def _stdout() -> int | None:
    """Return its descriptor, or None if the process was started without one.

    Closed ones become /dev/null: a connection would get their number, and libuv never closes those.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    return None if sys.stdout is None else 1
