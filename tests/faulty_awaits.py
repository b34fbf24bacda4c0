"""Raise at an await of a running task, also inside a library, and report which await it was."""

import ast
import asyncio
import inspect
import textwrap
from collections.abc import Callable, Coroutine, Generator
from types import CodeType
from typing import Any


def awaits_of(*functions: Callable[..., Any]) -> set[tuple[str, int]]:
    """Return name and line of every await in these coroutine functions."""
    found = set()
    for function in functions:
        lines, first = inspect.getsourcelines(function)
        for node in ast.walk(ast.parse(textwrap.dedent("".join(lines)))):
            if isinstance(node, ast.Await):
                found.add((function.__qualname__, first + node.lineno - 1))
    return found


class Fault(Coroutine[Any, Any, Any]):
    """Runs a coroutine, and raises where it is suspended, as `FaultyTasks` decides."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], tasks: "FaultyTasks") -> None:
        self._coroutine = coroutine
        self._tasks = tasks

    def send(self, value: Any) -> Any:
        if self._tasks.is_due(self._coroutine):
            return self._coroutine.throw(self._tasks.exc)
        return self._coroutine.send(value)

    def throw(self, *exc: Any) -> Any:
        """Raise as a cancellation does, or a timeout, which also cancels."""
        return self._coroutine.throw(*((self._tasks.exc,) if self._tasks.is_due(self._coroutine) else exc))

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
        """Not awaitable: it is only a task's coroutine."""
        raise NotImplementedError


def _suspended_at(coroutine: Any) -> set[tuple[str, int]]:
    found = set()
    while inspect.iscoroutine(coroutine):
        code: CodeType = coroutine.cr_code
        if coroutine.cr_frame is not None:
            found.add((code.co_qualname, coroutine.cr_frame.f_lineno))
        coroutine = coroutine.cr_await
    return found


class FaultyTasks:
    """A task factory that raises once, in the first task of one coroutine function that reaches the await."""

    def __init__(self, function: Callable[..., Any], at: tuple[str, int], exc: BaseException, *, nth: int = 1) -> None:
        """Raise `exc` when a task resumes from the await `at` for the nth time."""
        self._code = function.__code__
        self._at = at
        self._left = nth
        self.exc = exc
        self.raised = False

    def is_due(self, coroutine: Any) -> bool:
        if self.raised or self._at not in _suspended_at(coroutine):
            return False
        self._left -= 1
        self.raised = self._left == 0
        return self.raised

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if getattr(coroutine, "cr_code", None) is self._code:
            coroutine = Fault(coroutine, self)
        return asyncio.Task(coroutine, loop=loop, **options)
