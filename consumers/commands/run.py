"""`drx-consumer run`: one consumer as a process."""

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

# Records leave hardly any cycles. The windows and batches of a lagging consumer hold about 400,000 objects: with a
# lower threshold the collector would walk them again and again and find nothing.
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
    """Return it with a line in the log before each call of its handler: the last one names what kills the process."""
    handle: Callable[[Any, Any], Awaitable[None]] | None = consumer.handle
    if handle is None:
        return consumer

    async def announcing(first: Any, second: Any) -> None:
        context = second if isinstance(second, Context) else first[0].context
        place = {"topic": context.topic, "partition": context.partition, "offset": context.offset}
        log.info("record.begun", group=context.group, **place)
        output.flush()  # a process that is killed loses what is queued
        await handle(first, second)

    return replace(consumer, handle=announcing)
