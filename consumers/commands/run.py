"""`drx-consumer run`: one consumer as a process."""

import click

from bridge.runtime.findings import refuse
from bridge.runtime.log_ids import current_id_key
from bridge.runtime.process import run_service
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
        consumer = consumer.one_at_a_time()
    refuse(check_settings(settings))
    return run_service(
        open_consumer(settings, consumer, chosen.registry),
        log_level=settings.log.level,
        log_id_key=current_id_key(settings.log.id_key_dir),
        drain_timeout_s=settings.shutdown.workers_s + LEAVE_S,
        overdue_s=settings.shutdown.overdue_s,
        gc_threshold=GC_THRESHOLD,
    )
