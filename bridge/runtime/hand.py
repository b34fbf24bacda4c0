"""One thread for what may hang on a disk, since the loop must not."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")


class Hand:
    """Does what it is handed, in that order; a daemon, so that a disk that hangs does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def do(self, work: Callable[[], Result]) -> asyncio.Future[Result]:
        """Return what will hold the outcome, to be awaited on the running loop."""
        outcome: Future[Result] = Future()
        self._work.put((work, outcome))
        return asyncio.wrap_future(outcome)

    def end(self) -> None:
        """Let the thread end when it has done everything; nobody waits for it."""
        self._work.put(None)

    def _run(self) -> None:
        while handed := self._work.get():
            work, outcome = handed
            if outcome.set_running_or_notify_cancel():
                _do(work, outcome)
            # Or a group of payloads would stay in memory until the next.
            del handed, work, outcome


def _do(work: Callable[[], Any], outcome: Future[Any]) -> None:
    try:
        result = work()
    except BaseException as exc:  # noqa: BLE001 - whoever waits must hear of it, whatever it is
        outcome.set_exception(exc)
    else:
        outcome.set_result(result)
