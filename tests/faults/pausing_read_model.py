"""The read model with a pause at each event, so that few records keep it busy during a fault."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from consumers.api import Batches, Consumer, Placed, Setup
from consumers.postgres.pool import Connection
from consumers.read_model.apply import Applier
from consumers.read_model.consumer import open_read_model

NAME = "pausing_read_model"
# Small, so that there are many transactions to be killed in.
BATCH_RECORDS = 20


def pausing_read_model(setup: Setup) -> Consumer:
    """Build it; the options are those of the read model, and `pause_s` (for each event, inside its transaction)."""
    options = dict(setup.options)
    pause_s = float(options.pop("pause_s"))
    consumer = open_read_model(Setup(options, setup.registry))
    apply = cast("Applier", consumer.handle)

    async def apply_and_pause(batch: Sequence[Placed], connection: Connection) -> None:
        await apply(batch, connection)
        await asyncio.sleep(pause_s * len(batch))

    return replace(consumer, handle=apply_and_pause, mode=Batches(BATCH_RECORDS))
