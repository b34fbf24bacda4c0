"""`drx-consumer run`: run a consumer as a process."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import click

from bridge.runtime.findings import refuse
from bridge.runtime.log_ids import current_id_key
from bridge.runtime.logging import log, output
from bridge.runtime.process import run_service
from consumers.api import Consumer, Context
from consumers.commands.installed import choose
from consumers.settings import check_settings

# Records create hardly any reference cycles. A lagging consumer holds about 400,000 objects: with a lower threshold,
# garbage collection would scan them repeatedly and find nothing.
GC_THRESHOLD = 500_000


@click.command()
@click.argument("name")
@click.option("--one-at-a-time", is_flag=True, help="Handle one record at a time, to find one that kills the process.")
def run(name: str, *, one_at_a_time: bool) -> int:
    """Run the consumer NAME until SIGTERM or SIGINT, configured by CONSUMER_… variables and CONSUMER_CONFIG."""
    from consumers.app import LEAVE_S, open_consumer  # noqa: PLC0415 - half of the CPU of `--help`

    chosen = choose(name)
    settings, consumer = chosen.settings, chosen.consumer
    if one_at_a_time:
        consumer = announced(consumer.one_at_a_time())
    refuse(check_settings(settings))
    return run_service(
        open_consumer(settings, consumer, chosen.registry),
        log_level=settings.log.level,
        log_id_key=current_id_key(settings.log.id_key_dir),
        drain_timeout_s=settings.shutdown.workers_s + LEAVE_S,
        overdue_s=settings.shutdown.overdue_s,
        gc_threshold=GC_THRESHOLD,
    )


def announced(consumer: Consumer) -> Consumer:
    """Return the consumer with a log line before each call: the last one identifies a record that kills it."""
    handle: Callable[[Any, Any], Awaitable[None]] | None = consumer.handle
    if handle is None:
        return consumer

    async def announcing(first: Any, second: Any) -> None:
        context = second if isinstance(second, Context) else first[0].context
        position = {"topic": context.topic, "partition": context.partition, "offset": context.offset}
        log.info("record.begun", group=context.group, **position)
        output.flush()  # a killed process loses queued lines
        await handle(first, second)

    return replace(consumer, handle=announcing)
