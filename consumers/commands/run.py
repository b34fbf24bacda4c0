"""`drx-consumer run`: one consumer as a process."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import click
import structlog

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.lifecycle import FAILED, INTERRUPTED
from bridge.runtime.logging import configure_logging, keep_values_in, trail
from consumers.app import run_consumer
from consumers.commands.installed import choose
from consumers.settings import refuse_risks

if sys.platform == "win32":
    new_event_loop = asyncio.new_event_loop
else:
    from uvloop import new_event_loop

# As for the ingress: what is loaded by now is never garbage, and records leave hardly any cycles behind. The windows of
# a consumer that is behind hold 150,000 objects: below that, the collector would walk them again and again for nothing.
GC_THRESHOLD = 200_000


@click.command()
@click.argument("name")
def run(name: str) -> int:
    """Run the consumer NAME until SIGTERM or SIGINT, configured by CONSUMER_… variables and CONSUMER_CONFIG."""
    chosen = choose(name)
    # Said before anything is set up; later it could only be not ready.
    chosen.settings.postgres.address()
    chosen.settings.kafka.connection.options()
    refuse_risks(chosen.settings)
    configure_logging(level=chosen.settings.log.level, style=chosen.settings.log.format)
    keep_values_in()
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            came = runner.run(run_consumer(chosen.settings, chosen.consumer, chosen.registry))
    except ConfigError:
        raise
    except Exception as exc:  # noqa: BLE001 - Python's own report would print texts of libraries, which carry values
        structlog.get_logger().error("worker.process_failed", code=_code(exc), where=trail(exc))
        return FAILED
    return INTERRUPTED if signal.SIGINT in came[:1] else 0


def _code(exc: Exception) -> str:
    """Say what of ours ended the process, if anything of ours did."""
    if isinstance(exc, ExceptionGroup):
        return next(filter(None, map(_code, exc.exceptions)), "")
    return exc.code if isinstance(exc, BridgeError) else ""
