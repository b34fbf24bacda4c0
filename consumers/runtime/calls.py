"""Call a handler within a bound, even one that will not be cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from bridge.errors import TransientError
from consumers.runtime.failure import TIMEOUT
from consumers.runtime.share import Share

log = structlog.get_logger()

# What a cancelled handler gets to close its connections.
GRACE_S = 5.0


class HandlerTimeoutError(TransientError):
    """The handler took too long."""

    def __init__(self) -> None:
        """Need no other code."""
        super().__init__(TIMEOUT, systemic=True)


class HandlerStuckError(HandlerTimeoutError):
    """It goes on although it was cancelled: what it was given, it may still be using."""


class GivenUpError(TransientError):
    """The partition was taken while the handler ran."""

    def __init__(self) -> None:
        """Need no other code."""
        super().__init__("given_up")


async def bounded(share: Share, call: Coroutine[Any, Any, None], *, timeout_s: float, grace_s: float = GRACE_S) -> None:
    """Run a handler for a share; what it raises comes out.

    Raises:
        HandlerTimeoutError: Not done in time, and cancelled.
        HandlerStuckError: Not done in time, and not to be cancelled.
        GivenUpError: Cancelled with its share.
    """
    task = asyncio.get_running_loop().create_task(call)
    share.calls.add(task)
    task.add_done_callback(share.calls.discard)
    try:
        await asyncio.wait((task,), timeout=timeout_s)
        if task.done():
            if task.cancelled():
                raise GivenUpError
            task.result()
            return
        if not await _cancel(task, grace_s):
            raise HandlerStuckError
        raise HandlerTimeoutError
    except asyncio.CancelledError:
        await _cancel(task, grace_s)
        raise


async def _cancel(task: asyncio.Task[None], grace_s: float) -> bool:
    """Cancel and wait a little; False when the task goes on all the same."""
    task.cancel()
    task.add_done_callback(_forget)
    await asyncio.wait((task,), timeout=grace_s)
    if not task.done():
        log.error("worker.handler_stuck")
    return task.done()


def _forget(task: asyncio.Task[None]) -> None:
    """Look at what nobody waits for, so that the loop does not complain of it with a value in its words."""
    if not task.cancelled():
        task.exception()
