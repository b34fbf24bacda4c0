"""`drx-bridge demo`: start the stack, run the tour, and stay up for exploring."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import click

from bridge.dev.cli import Signalled, raise_on_signals
from bridge.dev.stack import Stack, open_stack
from bridge.runtime.process import INTERRUPTED

if TYPE_CHECKING:
    from bridge.dev.tour import Screen

SOURCE = "drx"


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Keep the data in this directory; default: remove it at the end.",
)
@click.option("--keep", is_flag=True, help="Stay up until Ctrl-C, also without a terminal.")
@click.option("--short", is_flag=True, help="Only one prescription, a forged and a broken delivery, and an outage.")
def demo(*, data_dir: Path | None, keep: bool, short: bool) -> int:
    """Follow one prescription end to end: signed, verified, written to Kafka, and on to PostgreSQL, a receiver, a lake.

    Then come a forged and a broken delivery, a record that cannot be decoded, and an outage of Kafka, in which nothing
    is refused or lost. Last come an event of an unknown type, and a replay with a corrected mapping. Each hop is read
    back and compared; exit 1 if anything differs. On a terminal, or with --keep, everything stays up until Ctrl-C.
    """
    from bridge.dev.tour import Screen, tour  # noqa: PLC0415 - with pyarrow and asyncpg half of the CPU of `--help`

    raise_on_signals()
    screen, code = Screen(), INTERRUPTED
    # A heartbeat during the outage would be spooled and counted with the events of the tour.
    os.environ["BRIDGE_HEARTBEAT__ENABLED"] = "false"
    screen.chapter(
        "drx-bridge: verified pharmacy webhooks into Kafka, and on to PostgreSQL and other systems",
        "Everything is real here - HTTP, signatures, Kafka, Avro, PostgreSQL - but the people are fictitious.\n"
        "It all starts here, and nothing leaves this machine; the first time fetches Kafka, which takes a minute.",
    )
    try:
        with ExitStack() as cleanup:
            # A killed broker may still write a file a moment later; this must not fail the demo.
            scratch = tempfile.TemporaryDirectory(prefix="drx-demo-", ignore_cleanup_errors=True)
            directory = data_dir or Path(cleanup.enter_context(scratch))
            stack = cleanup.enter_context(open_stack(directory, say=screen.line))
            key = asyncio.run(tour(stack, screen, source=SOURCE, short=short))
            screen.close()
            code = int(bool(screen.differences))
            if keep or sys.stdin.isatty():
                _invite(stack, screen, key=key)
                stack.keep_up()
            screen.line("stopping everything")
    except Signalled as stopped:
        screen.line("stopped")
        code = code or stopped.code
    return code


def _invite(stack: Stack, screen: Screen, *, key: str) -> None:
    """Print what to try while everything runs."""
    endpoints, directory = stack.endpoints, stack.directory
    secret_file = shlex.quote(endpoints["sources"][SOURCE]["secret_file"])
    screen.chapter(
        "It is all still running; Ctrl-C ends it", "Open this in a browser, and try the rest in a second terminal:"
    )
    for text, what in (
        ("Each delivery as it arrives", endpoints["page"]),
        ("The settings of this stack, and a PATH to the commands", f". {shlex.quote(str(directory.env))}"),
        ("The events of this prescription, unmasked", f"drx-bridge tail --until-end --show-phi --key {key}"),
        (
            "A hundred events of other people, some twice",
            f"drx-bridge simulate --url $INGRESS --secret-file {secret_file} --count 100 --duplicates 0.1",
        ),
        ("Where everything else is, with the database's password", directory.endpoints),
    ):
        screen.line(f"{text}:  {what}")
