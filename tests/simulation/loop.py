"""A virtual loop that knows which process each step belongs to, and so can freeze a process, or end it at any await."""

import asyncio
import heapq
import selectors
from contextvars import Context, ContextVar, copy_context
from typing import Any

# Steps of the loop at one moment, after which something is running that never waits.
TURNS_MAX = 100_000

PROCESS: "ContextVar[Process | None]" = ContextVar("process", default=None)


class Process:
    """What runs between a start and an end: tasks, timers and callbacks, known by their context."""

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.alive = True
        self._loop = loop
        self._is_frozen = False
        self._held: list[asyncio.Handle] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def keeps(self, handle: asyncio.Handle) -> bool:
        """Return whether a step that is due must not run now."""
        if not self.alive:
            handle.cancel()
            return True
        if self._is_frozen:
            self._held.append(handle)
            return True
        return False

    def freeze(self) -> None:
        """Run nothing of it until `thaw`; its timers become due meanwhile."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Go on with all that has become due."""
        self._is_frozen = False
        held, self._held = self._held, []
        for handle in held:
            if not handle.cancelled():
                self._loop.put(handle)

    def end(self) -> None:
        """Run nothing of it any more: no `finally`, no `except`."""
        self.alive = False
        self._held.clear()
        self._loop.bury(self)


class _Instant(selectors.SelectSelector):
    """Never asks the kernel and never waits: what would be waited for is added to the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        self._turns += 1
        if timeout:
            self.now += timeout
            self._turns = 0
        elif self._turns > TURNS_MAX:
            msg = "something runs without end while no time passes"
            raise RuntimeError(msg)
        return []


class _Task(asyncio.Task[Any]):
    """A task that knows its process."""

    process: Process | None = None


class SimulatedLoop(asyncio.SelectorEventLoop):
    """One thread, no network, no wall clock; steps run in the order in which they became due."""

    def __init__(self) -> None:
        self._instant = _Instant()
        super().__init__(self._instant)
        self._clock_resolution = 1e-9
        self.set_task_factory(_task)

    def _make_self_pipe(self) -> None:
        """Need no sockets: there are no other threads."""

    def _close_self_pipe(self) -> None:
        """There are none."""

    def _write_to_self(self) -> None:
        """Nobody waits."""

    def __del__(self, *_: Any) -> None:
        self.close()

    def time(self) -> float:
        return self._instant.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:  # type: ignore[override]  # untyped arguments
        handle = _Step(callback, args, self, context)
        self._ready.append(handle)  # type: ignore[attr-defined]  # asyncio's own queue
        return handle

    def call_at(  # type: ignore[override]  # as above
        self, when: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        timer = _Timer(when, callback, args, self, context)
        heapq.heappush(self._scheduled, timer)  # type: ignore[attr-defined]  # as above
        timer._scheduled = True  # type: ignore[attr-defined]  # as above
        return timer

    def put(self, handle: asyncio.Handle) -> None:
        """Run a step that was held back."""
        self._ready.append(handle)  # type: ignore[attr-defined]  # as above

    def run_in_executor(self, *_: Any) -> Any:  # type: ignore[override]  # as above
        msg = "a thread, whose order no seed decides"
        raise AssertionError(msg)

    def bury(self, process: Process | None = None) -> None:
        """Keep the tasks of an ended process, or all: collected, they would run their `finally` blocks."""
        for task in asyncio.all_tasks(self):
            if process is None or (isinstance(task, _Task) and task.process is process):
                task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
                _GRAVEYARD.append(task)


# Until the interpreter ends, which then must not collect them either: `os._exit`.
_GRAVEYARD: list[asyncio.Task[Any]] = []


def _task(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task = _Task(coroutine, loop=loop, **options)
    task.process = PROCESS.get()
    return task


class _Step(asyncio.Handle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None or not process.keeps(self):
            super()._run()


class _Timer(asyncio.TimerHandle):
    __slots__ = ()

    def _run(self) -> None:
        process = self._context.get(PROCESS)  # type: ignore[attr-defined]
        if process is None or not process.keeps(self):
            super()._run()
