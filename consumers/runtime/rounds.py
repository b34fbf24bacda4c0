"""Combine the queries of many callers: those that arrive during one round form the next."""

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import Generic, TypeVar

from bridge.errors import TransientError
from consumers.runtime.ledger import FencedError
from consumers.runtime.tasks import Tasks

Item = TypeVar("Item")
_Result = TypeVar("_Result")

Round = Callable[[Sequence[Item]], Awaitable[Sequence[_Result]]]
Waiting = tuple[Item, asyncio.Future[_Result]]


class Rounds(Generic[Item, _Result]):
    """Serves many callers with one transaction at a time (a round), and waits during outages of the database."""

    def __init__(
        self,
        ask: Round[Item, _Result],
        *,
        name: Callable[[Item], Hashable],
        back_off: Callable[[Exception, int], Awaitable[None]],
        tasks: Tasks,
        slots: asyncio.Semaphore,
    ) -> None:
        """`ask` runs a round, with at most one item per `name`, in one of `slots`; retries release their slot."""
        self._ask = ask
        self._name = name
        self._back_off = back_off
        self._tasks = tasks
        self._slots = slots
        self._waiting: list[Waiting[Item, _Result]] = []
        self._running = False

    async def ask(self, item: Item) -> _Result:
        """Return the result for an item; raises the item's own failures, and `FencedError`."""
        future: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if not self._running:
            self._running = True
            self._tasks.start(self._run())
        return await future

    async def _run(self) -> None:
        failures = 0
        try:
            while self._waiting:
                taken: list[Waiting[Item, _Result]] = []
                try:
                    async with self._slots:
                        taken = self._take()
                        await self._round(taken)
                except (TransientError, OSError) as exc:
                    self._waiting = [*taken, *self._waiting]
                    failures += 1
                    await self._back_off(exc, failures)
                else:
                    failures = 0
        finally:
            self._running = False

    def _take(self) -> list[Waiting[Item, _Result]]:
        """Take the waiting callers, one of each name."""
        first: dict[Hashable, Waiting[Item, _Result]] = {}
        waiting = [each for each in self._waiting if not each[1].done()]
        self._waiting = [each for each in waiting if first.setdefault(self._name(each[0]), each) is not each]
        return list(first.values())

    async def _round(self, taken: Sequence[Waiting[Item, _Result]]) -> None:
        """Process items together; if that fails, each separately."""
        if not taken:
            return
        try:
            results = await self._ask([item for item, _ in taken])
        except (TransientError, OSError):
            raise
        except Exception as exc:  # noqa: BLE001 - the callers classify it
            if len(taken) > 1 and not isinstance(exc, FencedError):
                for each in taken:
                    await self._round([each])
                return
            for _, future in taken:
                if not future.done():
                    future.set_exception(exc)
            return
        for (_, future), result in zip(taken, results, strict=True):
            if not future.done():
                future.set_result(result)
