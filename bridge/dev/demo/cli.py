"""`drx-bridge demo`: start the stack, take the tour, and stay up for those who want to look around."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import click

from bridge.dev.cli import TEND_PERIOD_S, Signals, Stopped
from bridge.dev.demo.screen import Screen
from bridge.dev.stack import Options, Stack, open_stack
from bridge.runtime.logging import silence_kafka_client
from bridge.runtime.process import INTERRUPTED


@click.command()
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    help="Keep the data in this directory; default: remove it at the end.",
)
@click.option("--keep", is_flag=True, help="Stay up until Ctrl-C, also without a terminal.")
def demo(*, data_dir: Path | None, keep: bool) -> int:
    """Follow one prescription end to end: signed, verified, written to Kafka, and on to PostgreSQL, a receiver, a lake.

    A forged and a broken delivery follow, a record that nobody can decode, and an outage of Kafka, in which nothing is
    refused and nothing lost. Each hop is read back and compared: exit 1 if anything is not as it should be. On a
    terminal, or with --keep, everything stays up until Ctrl-C.
    """
    from bridge.dev.demo.tour import SOURCE, tour  # noqa: PLC0415 - with pyarrow and asyncpg half of the CPU of `--help`

    signals, screen, finished = Signals(), Screen(), False
    # One in the outage would be in the spool, too, and be counted with the events of the story.
    os.environ["BRIDGE_HEARTBEAT__ENABLED"] = "false"
    silence_kafka_client()
    screen.panel(
        "drx-bridge: verified pharmacy webhooks into Kafka, and on to PostgreSQL and other systems",
        "Everything is real here - HTTP, signatures, Kafka, Avro, PostgreSQL - but nobody in this story exists.",
        style="cyan",
    )
    text = "PostgreSQL, Kafka, registry, bridge, consumers and a receiver start here; nothing leaves this machine."
    screen.chapter("0  The stack", text)
    try:
        with ExitStack() as cleanup:
            directory = data_dir
            if directory is None:
                # A broker that was killed may leave a file behind a moment later; that is no failure of the demo.
                scratch = tempfile.TemporaryDirectory(prefix="drx-demo-", ignore_cleanup_errors=True)
                directory = Path(cleanup.enter_context(scratch))
            with screen.waiting("starting; the first time fetches Kafka, which takes a minute"):
                opened = open_stack(Options(data_dir=directory), say=screen.line, check=signals.check)
                stack = cleanup.enter_context(opened)
            key = signals.run(tour(stack, screen))
            screen.close()
            finished = True
            if keep or sys.stdin.isatty():
                _invite(stack, screen, stack.endpoints["sources"][SOURCE], key=key, kept=data_dir)
                while signals.came is None:
                    stack.tend()
                    time.sleep(TEND_PERIOD_S)
            with screen.waiting("stopping everything"):
                cleanup.close()
    except Stopped:
        screen.line("stopped")
    if finished and screen.differences:
        return 1
    return INTERRUPTED if signals.came is signal.SIGINT or not finished else 0


def _invite(stack: Stack, screen: Screen, source: Mapping[str, str], *, key: str, kept: Path | None) -> None:
    """Say where everything is, and what to try."""
    endpoints, programs = stack.endpoints, shlex.quote(os.path.relpath(Path(sys.executable).parent))
    bridge, consumer = f"{programs}/drx-bridge", f"{programs}/drx-consumer"
    servers = endpoints["bootstrap_servers"]
    url = f"{endpoints['ingress']}{source['path']}"
    lake = f"{endpoints['lake']}/events/**/*.parquet"
    tail = f"{bridge} tail --bootstrap-servers {servers}"
    # The file holds a password: a shell reads it, and it is not shown.
    read = f'import json; print(json.load(open("{stack.directory.endpoints}"))["postgres"])'
    dsn = f'CONSUMER_POSTGRES__DSN="$(python3 -c {shlex.quote(read)})"'
    settings = f"CONSUMER_KAFKA__BOOTSTRAP_SERVERS={servers} {dsn}"
    screen.chapter("It is all still running; Ctrl-C ends it", "Open a second terminal here and try:")
    send = f"{bridge} simulate --url {url} --secret-file {shlex.quote(source['secret_file'])}"
    for text, command in (
        ("Watch events as they come, health information masked:", tail),
        ("Look at the life you have just seen, unmasked:", f"{tail} --until-end --show-phi --key {key}"),
        ("Send a hundred events of other people, some twice:", f"{send} --count 100 --duplicates 0.1"),
        ("See what the bridge measures:", f"curl -s {endpoints['management']}/metrics"),
        ("See what the receiver was sent:", f"curl -s {endpoints['receiver']}/received"),
        ("See what is in the lake, with DuckDB:", f"duckdb -c \"from '{lake}' limit 9\""),
        ("Let the commands of the consumers know where all this is:", f"export {settings}"),
        ("How far is the read model?", f"{consumer} lag read_model"),
        ("What has it set aside?", f"{consumer} parked list read_model"),
    ):
        screen.line(text)
        screen.line(f"  {command}\n", "")
    places = {name: endpoints[name] for name in ("management", "registry", "logs")}
    screen.pairs({"ingress": url, "kafka": servers, "endpoints": stack.directory.endpoints, **places})
    screen.line("The data goes when the demo ends." if kept is None else f"The data stays in {kept}.")
