"""A virtual loop that assigns each step to a process, and can freeze a process or end it at any await."""

import asyncio
import heapq
from collections import deque
from contextvars import Context, ContextVar, copy_context
from itertools import count
from typing import Any

# Steps of the loop at one moment, after which something is running that never waits.
TURNS_MAX = 100_000

PROCESS: "ContextVar[Process | None]" = ContextVar("process", default=None)


class Process:
    """The tasks, timers and callbacks of one simulated process, identified by their context."""

    def __init__(self, loop: "SimulatedLoop", name: str) -> None:
        self.name = name
        self.began = loop.time()
        self.alive = True
        self._loop = loop
        self._is_frozen = False
        self._held: list[_Step] = []
        self.context: Context = copy_context()
        self.context.run(PROCESS.set, self)

    def keeps(self, step: "_Step") -> bool:
        """Return whether a step that is due must not run now."""
        if not self.alive:
            step.cancel()
            return True
        if self._is_frozen:
            self._held.append(step)
            return True
        return False

    def freeze(self) -> None:
        """Run none of its steps until `thaw`; its timers still become due."""
        self._is_frozen = True

    def thaw(self) -> None:
        """Run all steps that have become due."""
        self._is_frozen = False
        held, self._held = self._held, []
        for step in held:
            self._loop.put(step)

    def end(self) -> None:
        """Run none of its steps any more: no `finally`, no `except`."""
        self.alive = False
        self._held.clear()
        self._loop.bury(self)


class _Task(asyncio.Task[Any]):
    """A task with its process."""

    process: Process | None = None

    def __init__(self, *args: Any, loop: "SimulatedLoop", **options: Any) -> None:
        self._number = next(loop.numbers)
        super().__init__(*args, loop=loop, **options)

    def __hash__(self) -> int:
        """Return a number that sets order tasks by, the same in each run."""
        return self._number


class SimulatedLoop(asyncio.SelectorEventLoop):
    """One thread, no network, no wall clock; steps run in the order in which they became due."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._due: deque[_Step] = deque()
        self._timers: list[tuple[float, int, _Step]] = []
        self.numbers = count()
        self.set_task_factory(_task)

    def __del__(self, *_: Any) -> None:
        self.close()

    def time(self) -> float:
        return self.now

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> "_Step":  # type: ignore[override]  # untyped arguments
        step = _Step(callback, args, context or copy_context())
        self._due.append(step)
        return step

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> "_Step":  # type: ignore[override]  # as above
        step = _Step(callback, args, context or copy_context(), when)
        heapq.heappush(self._timers, (when, next(self.numbers), step))
        return step

    def call_later(self, delay: float, callback: Any, *args: Any, context: Context | None = None) -> "_Step":  # type: ignore[override]  # as above
        return self.call_at(self.now + delay, callback, *args, context=context)

    def put(self, step: "_Step") -> None:
        """Run a step that was held back."""
        self._due.append(step)

    def _run_once(self) -> None:
        """Run the steps that are due now; without any, advance to the next time at which one is."""
        due, turns = self._due, 0
        while due:
            turns += 1
            if turns > TURNS_MAX:
                msg = "something runs without end while no time passes"
                raise RuntimeError(msg)
            for _ in range(len(due)):
                step = due.popleft()
                callback, context = step.callback, step.context
                process = context.get(PROCESS)
                if callback is None or (process is not None and process.keeps(step)):
                    continue
                try:
                    context.run(callback, *step.args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as exc:  # noqa: BLE001 - as asyncio does
                    self.call_exception_handler({"message": f"a callback raised: {callback}", "exception": exc})
            if self._stopping:  # type: ignore[attr-defined]  # asyncio's own
                return
        self._pass_time()

    def _pass_time(self) -> None:
        due, timers = self._due, self._timers
        while timers and timers[0][2].callback is None:
            heapq.heappop(timers)
        if not timers:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        self.now = max(self.now, timers[0][0])
        while timers and timers[0][0] <= self.now:
            due.append(heapq.heappop(timers)[2])

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


def _task(loop: Any, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
    task = _Task(coroutine, loop=loop, **options)
    context = options.get("context")
    task.process = context.get(PROCESS) if context else PROCESS.get()
    return task


class _Step:
    """A handle of a callback that is due, or of a timer; it is cheaper than asyncio's."""

    __slots__ = ("_when", "args", "callback", "context")

    def __init__(self, callback: Any, args: tuple[Any, ...], context: Context, when: float = 0.0) -> None:
        self.callback, self.args, self.context, self._when = callback, args, context, when

    def cancel(self) -> None:
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        return self.callback is None

    def when(self) -> float:
        return self._when
