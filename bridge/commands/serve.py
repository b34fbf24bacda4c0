"""`drx-bridge serve`: the ingress as a process."""

import click

from bridge.runtime.log_ids import current_id_key
from bridge.runtime.process import run_service
from bridge.settings import load_settings

# Deliveries create no reference cycles. With Python's default of 700 objects, collections took 4 % of the CPU.
GC_THRESHOLD = 10_000


@click.command()
def serve() -> int:
    """Run the ingress until SIGTERM or SIGINT, configured by BRIDGE_… variables and BRIDGE_CONFIG."""
    from bridge.app import STOP_MARGIN_S, open_ingress  # noqa: PLC0415 - half of the CPU of `--help`

    settings = load_settings()
    return run_service(
        open_ingress(settings),
        log_level=settings.log.level,
        log_id_key=current_id_key(settings.log.id_key_dir),
        drain_timeout_s=settings.shutdown.drain_s + STOP_MARGIN_S,
        overdue_s=settings.shutdown.overdue_s,
        gc_threshold=GC_THRESHOLD,
    )
