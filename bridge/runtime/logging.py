"""One JSON line per outcome on standard output; what libraries log is reduced to constants, since it carries values."""

from __future__ import annotations

import logging
import sys
import traceback
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import orjson
import structlog

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
# Innermost places that are logged; a line stays well under 8 KiB.
TRAIL_MAX = 20
_LINE = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z


class LineLogger:
    """Writes whole lines, each at once; one call of a buffered stream is not divided among threads."""

    def __init__(self, stream: BinaryIO) -> None:
        """Write to `stream`."""
        self._write = stream.write
        self._flush = stream.flush

    def msg(self, line: bytes) -> None:
        """Write one line."""
        self._write(line)
        self._flush()

    debug = info = warning = error = critical = msg


class LibraryHandler(logging.Handler):
    """Routes the stdlib loggers of aiohttp, aiokafka and asyncio into ours without a single value of theirs."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log where it came from, the constant template, and the exception's type."""
        failure = record.exc_info[0] if record.exc_info else None
        # A message without arguments may have been formatted already, so only a template is known to be constant.
        template = record.msg if record.args and isinstance(record.msg, str) else ""
        structlog.get_logger().log(
            record.levelno,
            "worker.library",
            logger=record.name,
            where=f"{record.module}:{record.lineno}",
            template=template,
            code=failure.__name__ if failure else "",
        )


def trail(exc: BaseException) -> list[str]:
    """Return where a bug happened, outermost call first: places in code only, since texts and locals carry values."""
    if isinstance(exc, BaseExceptionGroup):
        return [place for each in exc.exceptions for place in trail(each)]
    frames = traceback.extract_tb(exc.__traceback__)
    places = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames[-TRAIL_MAX:]]
    return [*places, type(exc).__name__]


def configure_logging(*, level: str, style: Literal["auto", "json", "console"]) -> None:
    """Set structlog and the stdlib loggers up; once per process."""
    console = style == "console" or (style == "auto" and sys.stdout.isatty())
    processors: list[Any]
    factory: Any
    if console:
        stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
        processors = [structlog.processors.add_log_level, stamp, structlog.dev.ConsoleRenderer()]
        factory = structlog.PrintLoggerFactory(sys.stdout)
    else:
        processors = [_json_line]
        factory = partial(LineLogger, sys.stdout.buffer)
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=factory,
        cache_logger_on_first_use=True,
    )
    root = logging.getLogger()
    root.handlers[:] = [LibraryHandler()]
    root.setLevel(max(LEVELS[level], logging.WARNING))


def log_errors_to_stderr() -> None:
    """Have a command say on standard error what a human must look at, and nothing else."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR),
        logger_factory=lambda *_: structlog.PrintLogger(sys.stderr),
    )
    silence_kafka_client()


def silence_kafka_client() -> None:
    """Keep the client's complaints off an operator's screen: a command says in its own words what is away."""
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def _json_line(_: Any, level: str, fields: dict[str, Any]) -> bytes:
    """Add the level and the time and render, in one step: there is a line for every delivery."""
    fields["level"] = level
    fields["timestamp"] = datetime.now(UTC)
    return orjson.dumps(fields, option=_LINE)
