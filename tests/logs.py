"""Capture log lines, and reset the logging of a process."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bridge.runtime.logging import log

_AT_FIRST = log.least, log.put


@contextmanager
def capture_logs() -> Iterator[list[dict[str, Any]]]:
    """Yield the lines logged in the block: their fields, and the level as `log_level`."""
    lines: list[dict[str, Any]] = []
    before = log.least, log.put
    log.least, log.put = logging.DEBUG, lambda line: lines.append(line[2] | {"log_level": line[0]})
    try:
        yield lines
    finally:
        log.least, log.put = before


def reset_logging() -> None:
    """Undo `configure_logging` and `silence_kafka_client`."""
    logging.getLogger("aiokafka").setLevel(logging.NOTSET)
    log.least, log.put = _AT_FIRST
