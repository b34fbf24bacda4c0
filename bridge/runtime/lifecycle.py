"""Run the long-lived parts of a process together: the first to end, or a signal, stops all of them in order."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, Protocol, TypeVar

_Result = TypeVar("_Result")
Fault = TypeVar("Fault", bound=Exception)


class Worker(Protocol):
    """A long-lived part of a process."""

    def run(self, stop: asyncio.Event) -> Coroutine[Any, Any, None]:
        """Work until `stop` is set, drain, return; raise only if the process must end."""


async def run_workers(workers: Sequence[Worker], *, stop: asyncio.Event, drain_timeout_s: float) -> None:
    """Run all workers; once one ends or `stop` is set, give the rest `drain_timeout_s`, then cancel them.

    Raises:
        ExceptionGroup: Exceptions of workers; a BaseExceptionGroup if one is not an Exception.
    """
    tasks = {asyncio.create_task(worker.run(stop)) for worker in workers}
    try:
        await first_of(tasks, stop)
    finally:
        stop.set()
        _, late = await asyncio.wait(tasks, timeout=drain_timeout_s)
        for task in late:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    failures = [each for each in results if isinstance(each, BaseException)]
    failures = [each for each in failures if not isinstance(each, asyncio.CancelledError)]
    if failures:
        raise BaseExceptionGroup("workers failed", failures)


def first_fault(group: ExceptionGroup[Exception], kind: type[Fault]) -> Fault | None:
    """Return the first exception of a kind in nested groups; None if there is none."""
    for each in group.exceptions:
        found = first_fault(each, kind) if isinstance(each, ExceptionGroup) else each
        if isinstance(found, kind):
            return found
    return None


@asynccontextmanager
async def background(worker: Worker, *, drain_timeout_s: float) -> AsyncIterator[asyncio.Task[None]]:
    """Run a worker that must outlive the others, such as the producer, while the context is open."""
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield task
    finally:
        stop.set()
        await asyncio.wait({task}, timeout=drain_timeout_s)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """Return the result of `work`; if `stop` is set first, cancel it, wait for its end, and return None."""
    task = asyncio.create_task(work)
    try:
        await first_of({task}, stop)
    finally:
        task.cancel()
        await asyncio.wait({task})
    return None if task.cancelled() else task.result()


class EndOf:
    """A worker that ends when a background task does, and so stops the process."""

    def __init__(self, task: asyncio.Task[None]) -> None:
        self._task = task

    async def run(self, stop: asyncio.Event) -> None:
        """Return when the task ends or `stop` is set; raise the task's exception."""
        await first_of({self._task}, stop)
        if self._task.done():
            self._task.result()


async def pause(stop: asyncio.Event, seconds: float) -> bool:
    """Return True after `seconds`, False as soon as `stop` is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stop.wait()
    return not stop.is_set()


async def repeat(work: Callable[[], Coroutine[Any, Any, None]], every_s: float, stop: asyncio.Event) -> None:
    """Run `work` once a period until `stop` is set, which also cancels it."""
    while await pause(stop, every_s):
        await unless(stop, work())


async def first_of(tasks: Collection[asyncio.Task[Any]], stop: asyncio.Event) -> None:
    """Wait until one of the tasks has ended or `stop` is set."""
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({*tasks, stopped}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


def is_cancelled() -> bool:
    """Return whether the current task is being cancelled; a `CancelledError` may also come from a library's future."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def stop_on_signals(stop: asyncio.Event) -> list[signal.Signals]:
    """Set `stop` at SIGTERM or SIGINT; the returned list collects received signals in order."""
    seen: list[signal.Signals] = []

    def arrived(number: signal.Signals) -> None:
        seen.append(number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, arrived, number)
    return seen
