"""Waiting for what no event announces."""

import asyncio
from collections.abc import Callable

# A bound on a hang, not a claim about time.
HANG_S = 60.0


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something has come true."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - as the docstring of the module
            await asyncio.sleep(0.005)
