"""Wait for conditions without an event."""

import asyncio
from collections.abc import Callable

# A limit for a hang, not an assertion about time.
HANG_S = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until a condition is true."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - as the docstring of the module
            await asyncio.sleep(0.005)
