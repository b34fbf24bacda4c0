"""The log of a process: `log.info("worker.ready", http=…)` queues a line, and a thread writes it as JSON.

The queue is bounded: if the output blocks, lines are dropped and counted, and responses are not delayed. Ids are hashed
here (`log_ids`), and log messages of libraries are reduced to constants, so that no line contains a value. A command,
which does not call `configure_logging`, prints only errors, to standard error.
"""

import atexit
import contextlib
import logging
import math
import os
import secrets
import select
import sys
import threading
import time
import traceback
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2s
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeAlias

import orjson

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Innermost stack frames of a bug to log; a line stays well under 8 KiB.
TRAIL_MAX = 20
# Maximum queued lines: 5 MB at 600 bytes each, or 4 s at 2,000 deliveries a second.
QUEUE_MAX = 8192
# The kernel writes this much to a pipe atomically (pipe(7)), so that a kill or another writer never splits a line.
WRITE_MAX = getattr(select, "PIPE_BUF", 512)
# Seconds to gather lines once the queue is empty: the thread wakes 20 times a second under load, at 150 µs each.
GATHER_S = 0.05
# Seconds that a process waits for its last lines at exit: less than half of the 5 s between stop and kill.
FLUSH_S = 2.0
# Seconds between two lines from one location in a library: a client with a failing login logs a hundred a second.
LIBRARY_EVERY_S = 1.0
# 24 hex digits, 96 bits: short, and any two of a billion ids collide with a probability of 1e-11.
ID_HASH_BYTES = 12

# Level, Unix time and fields; rendered by the thread.
Line: TypeAlias = tuple[str, float, dict[str, Any]]


class Log:
    """The process-wide log: passes lines of level `least` or above to `put`."""

    def __init__(self) -> None:
        self.least = logging.ERROR
        self.put: Callable[[Line], object] = lambda line: sys.stderr.write(render_for_people(line).decode())
        self.debug, self.info, self.warning, self.error = (partial(self.log, number) for number in LEVELS.values())

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Log a line with JSON values; `event_id` and `record_key` are hashed."""
        if level >= self.least:
            fields["event"] = event
            self.put((logging.getLevelName(level).lower(), time.time(), fields))


class LineWriter:
    """Writes lines to a descriptor in a thread; `put` never waits or raises, and `dropped` counts lost lines."""

    def __init__(self) -> None:
        # Both are reentrant: garbage collection may run a finalizer that logs during `put`.
        self._queue: SimpleQueue[Line | threading.Event] = SimpleQueue()
        self._counting = threading.RLock()
        self._thread: threading.Thread | None = None
        self._file, self._takes = -1, False
        self._render: Callable[[Line], bytes] = render
        self.dropped = self._reported = 0

    def open(self, file: int | None, rendered: Callable[[Line], bytes]) -> None:
        """Write to `file` from now on, after lines queued for the former file; with None, drop all lines."""
        self.flush()
        self._file, self._render = -1 if file is None else file, rendered
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.flush)

    def put(self, line: Line) -> None:
        """Queue a line."""
        if self._file < 0 or self._queue.qsize() >= QUEUE_MAX:
            self._drop(1)
        else:
            self._queue.put(line)

    def flush(self, timeout_s: float = FLUSH_S) -> bool:
        """Wait until all lines queued now are written or dropped; False after `timeout_s`."""
        if self._thread is None:
            return True
        self._queue.put(reached := threading.Event())
        return reached.wait(timeout_s)

    def _run(self) -> None:
        batch = b""
        while True:
            if self._queue.empty():
                self._write(batch)
                batch = b""
                self._report()
                time.sleep(GATHER_S)
            item = self._queue.get()
            line = b"" if isinstance(item, threading.Event) else self._render(item)
            if not line or len(batch) + len(line) > WRITE_MAX:
                self._write(batch)
                batch = b""
            batch += line
            if isinstance(item, threading.Event):
                self._report()
                item.set()

    def _report(self) -> None:
        """Log how many lines were dropped, once the output accepts lines again."""
        missing = self.dropped - self._reported
        if missing and self._takes:
            self._write(self._render(("warning", time.time(), {"event": "worker.log_dropped", "lines": missing})))
            self._reported += missing if self._takes else 0

    def _write(self, lines: bytes) -> None:
        if not lines:
            return
        done = 0
        with contextlib.suppress(OSError):
            while done < len(lines):
                try:
                    done += os.write(self._file, lines[done:])
                except BlockingIOError:  # another program made the descriptor non-blocking
                    time.sleep(GATHER_S)
        self._takes = done == len(lines)
        self._drop(lines.count(b"\n", done))

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count


def render(line: Line) -> bytes:
    """Return a line as JSON with hashed ids; if a field cannot be encoded, return the line without its fields."""
    level, at_s, fields = line
    head = {"event": fields.get("event"), "level": level, "timestamp": datetime.fromtimestamp(at_s, UTC)}
    option = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
    try:
        return orjson.dumps(_hash_ids(fields) | head, option=option)
    except Exception:  # noqa: BLE001 - a bug of ours, such as a lone surrogate, must not end the thread
        return orjson.dumps(head | {"unloggable": [name for name in fields if name not in head]}, option=option)


def render_for_people(line: Line) -> bytes:
    """Return a line for a terminal, with hashed ids."""
    level, at_s, fields = line
    event = fields.pop("event")
    words = " ".join(f"{name}={value!r}" for name, value in _hash_ids(fields).items())
    text = f"{datetime.fromtimestamp(at_s, UTC):%Y-%m-%dT%H:%M:%S.%fZ} {level:<7} {event} {words}".rstrip()
    return f"{text}\n".encode(errors="backslashreplace")


def id_hash(text: str, key: bytes) -> str:
    """Return the hash that replaces an id in log lines, as hex digits."""
    return blake2s(text.encode("utf-8", "surrogatepass"), key=key, digest_size=ID_HASH_BYTES).hexdigest()


def _hash_ids(fields: dict[str, Any]) -> dict[str, Any]:
    # A delivery about several prescriptions has several keys; keys do not contain spaces.
    if event_id := fields.get("event_id"):
        fields["event_id"] = id_hash(event_id, _id_key)
    if keys := fields.get("record_key"):
        fields["record_key"] = " ".join(id_hash(key, _id_key) for key in keys.split(" "))
    return fields


log = Log()
output = LineWriter()
_id_key = secrets.token_bytes(32)


class LibraryHandler(logging.Handler):
    """Reduces libraries' log messages to constants; each location in their code logs at most once a second."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._logged: dict[tuple[str, int], float] = {}  # time of the last line, by location in the code

    def emit(self, record: logging.LogRecord) -> None:
        """Log the origin, the constant template, and the exception's type."""
        place, now = (record.pathname, record.lineno), self._now()
        if now - self._logged.get(place, -math.inf) < LIBRARY_EVERY_S:
            return
        self._logged[place] = now
        failure = record.exc_info[0] if record.exc_info else None
        if failure is None and isinstance(record.args, tuple):
            failure = next((type(each) for each in record.args if isinstance(each, BaseException)), None)
        log.log(
            record.levelno,
            "worker.library",
            logger=record.name,
            where=f"{record.module}:{record.lineno}",
            # A message without arguments may already be formatted: only a template is known to be constant.
            template=record.msg if record.args and isinstance(record.msg, str) else "",
            code=failure.__name__ if failure else "",
        )


def trail(exc: BaseException) -> list[str]:
    """Return the stack of a bug, outermost call first: only code locations, since messages contain values."""
    if isinstance(exc, BaseExceptionGroup):
        return [place for each in exc.exceptions for place in trail(each)]
    frames = traceback.extract_tb(exc.__traceback__)[-TRAIL_MAX:]
    return [*(f"{Path(each.filename).name}:{each.lineno} {each.name}" for each in frames), type(exc).__name__]


def configure_logging(*, level: str, id_key: bytes) -> None:
    """Log to standard output from `level` on, including libraries, with hashed ids; JSON, or text on a terminal."""
    global _id_key  # noqa: PLW0603 - process-wide, like the output
    file = _stdout()
    console = file is not None and os.isatty(file)
    output.open(file, render_for_people if console else render)  # after lines logged before have been rendered
    _id_key = id_key
    log.least, log.put = LEVELS[level], output.put
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)
    logging.basicConfig(level=max(LEVELS[level], logging.WARNING), handlers=[LibraryHandler()], force=True)


def silence_kafka_client() -> None:
    """Silence aiokafka's logger until `configure_logging`: a command reports unreachable brokers itself."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _stdout() -> int | None:
    """Return the descriptor of standard output, or None if the process was started without one.

    Closed standard descriptors are opened on /dev/null: otherwise a connection would get their number, and libuv never
    closes these numbers.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    return None if sys.stdout is None else 1
