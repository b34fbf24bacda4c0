"""The tasks of one worker: each has an owner, the first failure is reported, and all of them end."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class Tasks:
    """Dynamic tasks of a worker; unlike in a `TaskGroup`, the failure of one does not cancel the others."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()
        self._failure: BaseException | None = None
        self._failed = asyncio.Event()

    def start(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run `work` until it ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def failed(self) -> None:
        """Wait until a task has failed."""
        await self._failed.wait()

    def check(self) -> None:
        """Raise the exception of the first failed task."""
        if self._failure is not None:
            raise self._failure

    async def end(self, timeout_s: float) -> None:
        """Cancel all and wait for them."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _done(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        failure = task.exception()
        if failure is not None and self._failure is None:
            self._failure = failure
            self._failed.set()
