"""One thread for calls that may block on a disk, since the event loop must not."""

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

_Result = TypeVar("_Result")


class IOThread:
    """Runs calls in order; a daemon thread, so that a hanging disk does not keep the process alive."""

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = queue.SimpleQueue()
        threading.Thread(target=self._run, name=name, daemon=True).start()

    def run(self, work: Callable[[], _Result]) -> asyncio.Future[_Result]:
        """Return a future with the outcome of a call, for the running loop."""
        outcome: Future[_Result] = Future()
        self._calls.put((work, outcome))
        return asyncio.wrap_future(outcome)

    def end(self) -> None:
        """End the thread after the calls already queued, without waiting for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while call := self._calls.get():
            work, outcome = call
            if outcome.set_running_or_notify_cancel():
                try:
                    outcome.set_result(work())
                except BaseException as exc:  # noqa: BLE001 - the caller must get any exception
                    outcome.set_exception(exc)
            # Otherwise the last group of payloads would stay in memory until the next call.
            del call, work, outcome
