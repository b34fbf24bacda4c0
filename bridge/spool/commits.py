"""Group commit: what comes while one group is on its way to the disk makes the next."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import structlog

from bridge.errors import NotDurableError
from bridge.runtime.hand import Hand
from bridge.runtime.logging import trail
from bridge.spool.ballast import SIZE_BYTES
from bridge.spool.book import Book
from bridge.spool.condition import STALLED
from bridge.spool.format import Entry
from bridge.spool.writer import Writer, Written

log = structlog.get_logger()

# A group fits the ballast, so that it can be saved when the disk is full; a larger call goes alone.
GROUP_MAX_BYTES = SIZE_BYTES
# A disk that takes longer for one group is in trouble, and who asks now is better told at once.
STALLED_S = 2.0


class Call(NamedTuple):
    """The entries of one call, durable together."""

    entries: Sequence[Entry]
    size: int
    done: asyncio.Future[None]


class Commits:
    """Calls on their way to the disk, in order."""

    def __init__(
        self,
        *,
        hand: Hand,
        writer: Writer,
        book: Book,
        durable: Callable[[Sequence[Entry], Written], None],
        refused: Callable[[str], None],
        stalled: Callable[[str], None],
        stalled_s: float,
    ) -> None:
        """Tell `durable` of each group before its calls end, and `refused` why one was not written.

        While the disk needs longer than `stalled_s` for a group, `stalled` has a word for it, and in the end none.
        """
        self._hand = hand
        self._writer = writer
        self._book = book
        self._durable = durable
        self._refused = refused
        self._stalled = stalled
        self._stalled_s = stalled_s
        self._calls: deque[Call] = deque()
        self._task: asyncio.Task[None] | None = None
        self._group: list[Call] = []
        self.size = 0

    @property
    def is_idle(self) -> bool:
        """True when nothing is on its way."""
        return self._task is None

    def put(self, call: Call) -> None:
        """Take a call; its future ends when it is durable or cannot be made so."""
        self._calls.append(call)
        self.size += call.size
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

    async def finish(self, timeout_s: float) -> None:
        """Wait so long for what is on its way; who waits longer is told that it is not durable."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=timeout_s)
            self._give_up(self._group, STALLED)

    async def _run(self) -> None:
        try:
            while group := self._next():
                self._group = group
                await self._commit(group)
        finally:
            self._group = []
            self._task = None

    def _next(self) -> list[Call]:
        """Take what goes together; who gave up waiting before it was begun is left out."""
        group: list[Call] = []
        size = 0
        while self._calls and (not group or size + self._calls[0].size <= GROUP_MAX_BYTES):
            call = self._calls.popleft()
            self.size -= call.size
            if not call.done.done():
                group.append(call)
                size += call.size
        return group

    async def _commit(self, group: list[Call]) -> None:
        entries = [entry for call in group for entry in call.entries]
        watch = asyncio.get_running_loop().call_later(self._stalled_s, self._stalled, STALLED)
        try:
            write = partial(self._writer.write, entries, is_first=not self._book.events())
            written = await self._hand.do(write)
        except NotDurableError as exc:
            self._give_up(group, exc.code)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave anybody waiting, nor the next group unwritten
            log.error("worker.spool_failed", code=type(exc).__name__, where=trail(exc))
            _fail(group, "unexpected")
        else:
            self._durable(entries, written)
            for call in group:
                if not call.done.done():
                    call.done.set_result(None)
            if written.code:
                self._give_up([], written.code)
        finally:
            watch.cancel()
            self._stalled("")

    def _give_up(self, group: list[Call], code: str) -> None:
        """Nothing that waits would fare better."""
        self._refused(code)
        waiting = list(self._calls)
        self._calls.clear()
        self.size = 0
        _fail(group + waiting, code)


def _fail(calls: list[Call], code: str) -> None:
    for call in calls:
        if not call.done.done():
            call.done.set_exception(NotDurableError(code))
