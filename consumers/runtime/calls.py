"""Call a consumer's handler with a timeout, in its own task, so that its exceptions cannot end the process."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

from bridge.errors import ConfigError, TransientError
from bridge.runtime.logging import log
from consumers.api import BatchHandler, Consumer, Context, EventHandler, Lanes, Outgoing, Placed
from consumers.runtime.decoding import Decoded
from consumers.runtime.retry_policy import TIMEOUT, HandlerExitError

# Seconds for a cancelled handler to close its connections.
CANCEL_S = 5.0


class HandlerTimeoutError(TransientError):
    """The handler exceeded its timeout."""

    def __init__(self) -> None:
        super().__init__(TIMEOUT)


class GivenUpError(TransientError):
    """The handler cancelled itself."""

    def __init__(self) -> None:
        super().__init__("given_up")


class Called(NamedTuple):
    """The result of a handler that returned."""

    outgoing: list[Outgoing]
    asked: bool  # it may have called its sink


class _Watched(Context):
    """A context that records whether its handler read the resource; without it, the sink cannot be called."""

    __slots__ = ("_resource", "asked")

    @property
    def resource(self) -> Any:
        self.asked = True
        return self._resource

    @resource.setter
    def resource(self, resource: Any) -> None:
        self.asked, self._resource = False, resource


async def call_handler(
    consumer: Consumer, events: Sequence[Decoded], *, attempt: int, connection: Any, resource: Any
) -> Called:
    """Run the handler for events of one partition.

    Raises `HandlerTimeoutError` (a handler that ignores cancellation may still run), and `LookupError` if it published
    to a topic that the consumer does not name, which is a bug.
    """
    handle = consumer.handle
    if handle is None:
        raise ConfigError(f"consumer {consumer.name!r} has no handler")
    placed = [_placed(consumer.group, each, attempt, connection, resource) for each in events]
    call: Callable[[], Awaitable[None]]
    if isinstance(consumer.mode, Lanes):
        (one,) = placed
        call = partial(cast("EventHandler", handle), one.event, one.context)
    else:
        call = partial(cast("BatchHandler", handle), placed, connection)
    topic, number, offset = events[0].record[:3]
    where = {"group": consumer.group, "topic": topic, "partition": number, "offset": offset}
    await bounded(call, timeout_s=consumer.handler_timeout_s, where=where)
    outgoing = [each for one in placed for each in one.context.outgoing]
    if any(each.topic not in consumer.publishes for each in outgoing):
        raise LookupError
    return Called(outgoing, resource is None or any(cast("_Watched", one.context).asked for one in placed))


def _placed(group: str, event: Decoded, attempt: int, connection: Any, resource: Any) -> Placed:
    topic, partition, offset = event.record[:3]
    context = _Watched(
        group, topic, partition, offset, event.ordinal, attempt, connection, resource, event.traceparent, event.origin
    )
    return Placed(event.event, context)


async def bounded(call: Callable[[], Awaitable[None]], *, timeout_s: float, where: Mapping[str, Any]) -> None:
    """Run a handler and pass on its exceptions; `where` has the log fields of its first record."""
    task = asyncio.get_running_loop().create_task(_contained(call))
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if not task.done():
            await _cancel(task, where)
            raise HandlerTimeoutError
        if task.cancelled():
            raise GivenUpError
        task.result()
    except asyncio.CancelledError:
        await _cancel(task, where)
        raise


async def _cancel(task: asyncio.Task[None], where: Mapping[str, Any]) -> None:
    task.cancel()
    task.add_done_callback(_retrieve)
    await asyncio.wait((task,), timeout=CANCEL_S)
    if not task.done():
        log.error("worker.handler_stuck", **where)


def _retrieve(task: asyncio.Task[None]) -> None:
    """Retrieve an unawaited exception; otherwise asyncio would log its message, which may contain values."""
    if not task.cancelled():
        task.exception()


async def _contained(call: Callable[[], Awaitable[None]]) -> None:
    """Call a handler in its task, and wrap exceptions such as SystemExit, on which asyncio ends the process."""
    try:
        await call()
    except (Exception, asyncio.CancelledError, GeneratorExit):
        raise
    except BaseException as exc:
        raise HandlerExitError from exc
