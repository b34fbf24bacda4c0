"""Raise at an await of a running task, wherever in a library the task is suspended, and know which await it was."""

from __future__ import annotations

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
    """Runs a coroutine, and raises in it the first time that it is suspended at one of its awaits.

    Attributes:
        seen: The awaits at which it was suspended.
        raised: Whether it has raised.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, Any], at: tuple[str, int], exc: BaseException) -> None:
        self._coroutine = coroutine
        self._at = at
        self._exc = exc
        self.raised = False

    def send(self, value: Any) -> Any:
        if not self.raised and self._at in _suspended_at(self._coroutine):
            self.raised = True
            return self._coroutine.throw(self._exc)
        return self._coroutine.send(value)

    def throw(self, *exc: Any) -> Any:
        return self._coroutine.throw(*exc)

    def close(self) -> None:
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, Any]:
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
    """A task factory that puts a `Fault` into the tasks of one coroutine function."""

    def __init__(self, function: Callable[..., Any], at: tuple[str, int], exc: BaseException) -> None:
        self._code = function.__code__
        self._at = at
        self._exc = exc
        self._faults: list[Fault] = []

    @property
    def raised(self) -> bool:
        """Whether any of them has raised."""
        return any(fault.raised for fault in self._faults)

    def __call__(self, loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> asyncio.Task[Any]:
        if getattr(coroutine, "cr_code", None) is self._code and not self.raised:
            coroutine = Fault(coroutine, self._at, self._exc)
            self._faults.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)
