"""Consumers of the bench: a sink that takes its time, and one key that never comes back."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup

SINK_S = 0.02
NAME = "bench_slow"


def slow(setup: Setup) -> Consumer:
    """Build it.

    Options: `topic`, `group`, `lanes`, `timeout_s`, `hanging` (a key, or none) and `times` (a file that gets a
    line for each event: its id and when it was handled).
    """
    options = setup.options
    hanging = options.get("hanging")
    consumer = Consumer(
        NAME,
        topics=[options["topic"]],
        mode=Lanes(int(options["lanes"])),
        handler_timeout_s=float(options["timeout_s"]),
        group=options["group"],
    )
    # Open as long as the process lives.
    times = Path(options["times"]).open("a", buffering=1, encoding="ascii")  # noqa: SIM115

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        del context
        if event.key == hanging:
            await asyncio.Event().wait()
        await asyncio.sleep(SINK_S)
        times.write(f"{event.id} {time.time()}\n")

    return consumer
