"""One JSON line per outcome on standard output; what libraries log is reduced to constants, since it carries values.

A line is queued, and a thread renders and writes it: many in a row take half the CPU of one after each delivery. An
output that nobody reads, that is full or that is gone costs lines, which are counted, and never an answer or a stop.
Ids are hashed here (`log_ids`), so that no line can hold one in clear.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import math
import os
import select
import stat
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Literal, NamedTuple

import orjson
import structlog

from bridge.runtime.log_ids import current_id_key, id_hash

if sys.platform != "win32":
    import resource

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Innermost places that are logged; a line stays well under 8 KiB.
TRAIL_MAX = 20
# Lines that wait for the output at most: at 600 bytes each, 5 MB, and 4 s of 2,000 deliveries a second.
QUEUE_MAX = 8192
# To a pipe the kernel writes so much whole or not at all (pipe(7)), so that a kill tears no line and other writers mix
# none up; to anything else there is no such promise, and this bounds one write.
PIPE_WRITE_MAX = getattr(select, "PIPE_BUF", 512)
WRITE_MAX = 65_536
# After a write, lines gather for this long: under load the thread is woken 20 times a second and not once a line. Each
# time costs some 150 µs, and the loop its turn of the interpreter.
GATHER_S = 0.05
# A descriptor that another program has made non-blocking is asked again after this time at the latest.
ASK_AGAIN_MS = 1000
# What the end of a process waits for its last lines: less than half of the margin between a stop and the kill, 5 s.
FLUSH_S = 2.0
# Between two lines of one place in a library's code.
LIBRARY_EVERY_S = 1.0
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
# The id of a delivery or an event, and the key of its record: the fields whose values are hashed.
EVENT_ID, RECORD_KEY = "event_id", "record_key"
# The line of a start, and what people see of it on the first of several.
STARTED = "worker.started"
_HEAD = frozenset({"event", "level", "timestamp"})


class Line(NamedTuple):
    """A line for programs that is not rendered yet.

    Attributes:
        level: Name of its level.
        at_s: When it was logged, Unix seconds.
        fields: With `event`; ids in clear.
    """

    level: str
    at_s: float
    fields: dict[str, Any]

    def render(self) -> bytes:
        """Return it as JSON, ids hashed; whatever is wrong with a field costs no other line."""
        fields = self.fields
        try:
            rendered = _hash_ids(None, self.level, fields)
            rendered["level"] = self.level
            rendered["timestamp"] = datetime.fromtimestamp(self.at_s, UTC)
            return orjson.dumps(rendered, option=_LINE)
        except Exception:  # noqa: BLE001 - a lone surrogate, or what is no JSON: a bug of ours, which must not end the thread
            known = {
                "event": fields.get("event"),
                "level": self.level,
                "timestamp": datetime.fromtimestamp(self.at_s, UTC),
            }
            return orjson.dumps(known | {"unloggable": [name for name in fields if name not in known]}, option=_LINE)


class LineWriter:
    """Writes lines to a file descriptor in a thread; a caller of `put` neither waits nor sees an error.

    New lines are dropped while the queue is full, and a write that fails drops what it would have written.
    """

    def __init__(self) -> None:
        self._lines: deque[bytes | Line | threading.Event] = deque()
        # Reentrant, as is `SimpleQueue.put`: garbage collection may run a finalizer that logs in the midst of `put`.
        self._counting = threading.RLock()
        self._wake: SimpleQueue[None] = SimpleQueue()
        self._idle = False
        self._thread: threading.Thread | None = None
        self._file: int | None = None
        self._write_max = WRITE_MAX
        self._is_torn = False
        self._takes = False
        self._dropped = 0
        self._reported = 0

    @property
    def dropped(self) -> int:
        """Lines dropped since the start of the process."""
        return self._dropped

    def open(self, file: int | None) -> None:
        """Write to `file` from now on, once what is queued for a former one is written; without any, drop all."""
        self.flush(FLUSH_S)
        self._file = file
        is_pipe = file is not None and stat.S_ISFIFO(os.fstat(file).st_mode)
        self._write_max = PIPE_WRITE_MAX if is_pipe else WRITE_MAX
        self._is_torn = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="log", daemon=True)
            self._thread.start()
            atexit.register(self.flush, FLUSH_S)

    def put(self, line: bytes | Line) -> None:
        """Queue a whole line."""
        if self._file is None or len(self._lines) >= QUEUE_MAX:
            self._drop(1)
            return
        self._queue(line)

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that is queued now is written or dropped; False when it takes longer."""
        if self._thread is None:
            return True
        reached = threading.Event()
        self._queue(reached)
        return reached.wait(timeout_s)

    def _queue(self, item: bytes | Line | threading.Event) -> None:
        self._lines.append(item)
        # Either the thread sees the item after it has said that it is idle, or that is seen here.
        if self._idle:
            self._idle = False
            self._wake.put(None)

    def _drop(self, count: int) -> None:
        with self._counting:
            self._dropped += count

    def _run(self) -> None:
        while True:
            self._idle = True
            if not self._lines:
                self._wake.get()
            self._idle = False
            while self._write_some():
                pass
            time.sleep(GATHER_S)

    def _write_some(self) -> bool:
        """Write as many lines as one write may hold; True when more were queued."""
        batch: list[bytes] = []
        room = self._write_max
        while self._lines:
            item = self._lines[0]
            if isinstance(item, threading.Event):
                if batch:
                    break
                self._report()
                item.set()
            else:
                line = item if isinstance(item, bytes) else item.render()
                if batch and len(line) > room:
                    self._lines[0] = line  # for the next write
                    break
                batch.append(line)
                room -= len(line)
            self._lines.popleft()
        more = bool(self._lines)
        if batch:
            failed = len(batch) - self._write(batch)
            self._drop(failed)
            self._takes = not failed
        if not more:
            self._report()
        return more

    def _report(self) -> None:
        """Say how many lines are missing, now that the output takes lines again."""
        dropped = self._dropped
        line = Line("warning", time.time(), {"event": "worker.log_dropped", "lines": dropped - self._reported})
        if self._takes and dropped > self._reported and self._write([line.render()]):
            self._reported = dropped

    def _write(self, batch: Sequence[bytes]) -> int:
        """Write lines, in several goes where the output takes less at a time; return how many it took whole."""
        # What a failed write left of a line ends here, or the next line would be part of it.
        mend = b"\n" if self._is_torn else b""
        text = mend + b"".join(batch)
        done = 0
        with contextlib.suppress(OSError):
            while done < len(text):
                done += self._write_now(memoryview(text)[done:])
        if done:
            self._is_torn = not text[:done].endswith(b"\n")
        return text[:done].count(b"\n", len(mend))

    def _write_now(self, text: memoryview) -> int:
        if self._file is None:
            return len(text)
        try:
            return os.write(self._file, text)
        except BlockingIOError:
            poll = select.poll()
            poll.register(self._file, select.POLLOUT)
            poll.poll(ASK_AGAIN_MS)
            return 0


# A process has one standard output, and the loggers that modules keep outlive a second configuration.
_output = LineWriter()
_hash_id = id_hash(current_id_key(None))


def dropped_lines() -> int:
    """Return how many lines of this process were not written."""
    return _output.dropped


def flush_log(timeout_s: float = FLUSH_S) -> bool:
    """Wait, no longer than that, until what was logged before is written or dropped."""
    return _output.flush(timeout_s)


class LineLogger:
    """What structlog writes to: a JSON line as bytes, or one for people as text."""

    @staticmethod
    def msg(line: bytes | str) -> None:
        """Queue it."""
        if isinstance(line, bytes):
            _output.put(line)
            return
        for each in line.splitlines():
            _output.put(f"{each}\n".encode(errors="backslashreplace"))

    debug = info = warning = error = critical = msg


class LibraryHandler(logging.Handler):
    """Routes the stdlib loggers of aiohttp, aiokafka and asyncio into ours without a single value of theirs.

    A client that cannot log in says so a hundred times a second; each line of a library's code is logged once a second.
    """

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
        # A message without arguments may have been formatted already, so only a template is known to be constant.
        template = record.msg if record.args and isinstance(record.msg, str) else ""
        structlog.get_logger().log(
            record.levelno,
            "worker.library",
            logger=record.name,
            where=f"{record.module}:{record.lineno}",
            template=template,
            code=failure.__name__ if failure else "",
            **({"left_out": left_out} if left_out else {}),
        )


def trail(exc: BaseException) -> list[str]:
    """Return where a bug happened, outermost call first: places in code only, since texts and locals carry values."""
    if isinstance(exc, BaseExceptionGroup):
        return [place for each in exc.exceptions for place in trail(each)]
    frames = traceback.extract_tb(exc.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-TRAIL_MAX:]]
    return [*places, type(exc).__name__]


def configure_logging(*, level: str, style: Literal["auto", "json", "console"], id_key: bytes | None = None) -> None:
    """Set structlog and the stdlib loggers up, to write to the standard output of now, and hash ids with a key."""
    global _hash_id  # noqa: PLW0603 - as the output: one for the process
    _occupy_standard_descriptors()
    file = _stdout()
    _output.open(file)  # when what was logged before has been rendered
    _hash_id = id_hash(id_key or current_id_key(None))
    console = style == "console" or (style == "auto" and file is not None and os.isatty(file))
    for_programs: Any = partial(JsonLogger, LEVELS[level])  # structlog calls it as it does a class of its own
    structlog.configure(
        processors=_for_people() if console else [],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]) if console else for_programs,
        logger_factory=lambda *_: LineLogger(),
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [LibraryHandler()]
    root.setLevel(max(LEVELS[level], logging.WARNING))


def keep_values_in() -> None:
    """Log what nobody catches by its places, where Python would write its text, and have no core dumped.

    Both would hold values. For a process of its own, once.
    """
    sys.excepthook = lambda _kind, exc, _trace: _log_uncaught(exc)
    threading.excepthook = lambda unhandled: _log_uncaught(unhandled.exc_value)
    sys.unraisablehook = lambda unraisable: _log_uncaught(unraisable.exc_value)
    logging.captureWarnings(capture=True)
    if sys.platform != "win32":
        _, hard = resource.getrlimit(resource.RLIMIT_CORE)
        # Of 1 byte there is no file, and Linux takes just this limit for "no program either" (fs/coredump.c).
        limit = 0 if hard == 0 else 1
        resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def log_errors_to_stderr() -> None:
    """Have a command say on standard error what a human must look at, and nothing else."""
    structlog.configure(
        processors=_for_people(colors=sys.stderr.isatty()),
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    silence_kafka_client()


def silence_kafka_client() -> None:
    """Keep the client's complaints off an operator's screen: a command says in its own words what is away."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _for_people(*, colors: bool = True) -> list[Any]:
    """Return what makes a line for people; with hashes in the place of ids, as in any other."""
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    return [
        _hash_ids,
        structlog.processors.add_log_level,
        stamp,
        partial(_lay_out, structlog.dev.ConsoleRenderer(colors=colors)),
    ]


def _lay_out(render: Any, logger: object, name: str, fields: dict[str, Any]) -> str:
    """Put each field of a start on a line of its own: it is the one line that would fill half a screen."""
    if fields["event"] != STARTED:
        line: str = render(logger, name, fields)
        return line
    spread = {each: fields.pop(each) for each in list(fields) if each not in _HEAD}
    width = max(map(len, spread), default=0)
    rows = [row for each, value in spread.items() for row in _rows(each, value, width)]
    return "\n".join([render(logger, name, fields), *rows])


def _rows(name: str, value: object, width: int) -> list[str]:
    """Return a field as lines; a mapping has one for each of its members."""
    values = [f"{key}: {each}" for key, each in value.items()] if isinstance(value, dict) else [str(value)]
    return [f"  {name if number == 0 else '':<{width}}  {each}" for number, each in enumerate(values)]


def _log_uncaught(exc: BaseException | None) -> None:
    structlog.get_logger().error("worker.uncaught", where=[] if exc is None else trail(exc))


def _occupy_standard_descriptors() -> None:
    """Open /dev/null for each that is closed; a connection would get its number, and libuv never closes those."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free


def _stdout() -> int | None:
    """Return its descriptor; None where the process was started without one."""
    try:
        return sys.stdout.fileno()
    except (AttributeError, OSError, ValueError):
        return None


class JsonLogger:
    """Queues a line of level `least` or above, to be rendered later.

    Through structlog's chain of processors a line takes four times the time, and there is one for every delivery.
    """

    def __init__(self, least: int, _logger: object, *, processors: object, context: object) -> None:
        del processors, context
        self._least = least
        self.debug, self.info, self.warning, self.error = (
            partial(_put_line, name) if number >= least else _pass_over for name, number in LEVELS.items()
        )

    def log(self, level: int, event: str, **fields: Any) -> None:
        """Log at a level of the standard library."""
        if level >= self._least:
            _put_line(logging.getLevelName(level).lower(), event, **fields)


def _put_line(level: str, event: str, **fields: Any) -> None:
    fields["event"] = event
    _output.put(Line(level, time.time(), fields))


def _hash_ids(_logger: object, _level: str, fields: dict[str, Any]) -> dict[str, Any]:
    """Put hashes in the place of ids."""
    if event_id := fields.get(EVENT_ID):
        fields[EVENT_ID] = _hash_id(event_id)
    if keys := fields.get(RECORD_KEY):
        # A delivery about several prescriptions has several; a key has no space in it.
        fields[RECORD_KEY] = " ".join(map(_hash_id, keys.split(" ")))
    return fields


def _pass_over(_event: str, **_fields: Any) -> None:
    pass
