"""`drx-bridge demo`: start the stack, take the tour, and stay up for those who want to look around."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from bridge.dev.cli import Signals, Stopped
from bridge.dev.demo import SOURCE
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_story import tour
from bridge.dev.stack import Options, Stack, open_stack
from bridge.runtime.logging import silence_kafka_client
from bridge.runtime.process import INTERRUPTED

# A signal is noticed, and a dead process started again, within this time.
_TEND_PERIOD_S = 0.2


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Keep the data there; else it goes with the demo.")
@click.option("--keep", is_flag=True, help="Stay up until Ctrl-C, also without a terminal.")
def demo(*, data_dir: Path | None, keep: bool) -> int:
    """Watch one prescription go all the way: signed, verified, written to Kafka, and from there into PostgreSQL.

    A forged and a broken delivery follow, a record that nobody can decode, and an outage of Kafka, in which nothing is
    refused and nothing lost. Each hop is read back and compared: exit 1 if anything is not as it should be. On a
    terminal, or with --keep, everything stays up until Ctrl-C.
    """
    signals = Signals()
    silence_kafka_client()
    screen = Screen(Console())
    screen.title(
        "drx-bridge: verified pharmacy webhooks into Kafka, and on to PostgreSQL",
        "Everything is real here - HTTP, signatures, Kafka, Avro, PostgreSQL - but nobody in this story exists.",
    )
    finished = False
    try:
        with ExitStack() as cleanup:
            directory = data_dir or Path(cleanup.enter_context(_temporary_directory()))
            stack = cleanup.enter_context(_starting(directory, screen=screen, signals=signals))
            key = asyncio.run(_until(signals.check, tour(stack, screen)))
            screen.close()
            finished = True
            if keep or sys.stdin.isatty():
                _invite(stack, screen, key=key, kept=data_dir)
                while signals.came is None:
                    stack.tend()
                    time.sleep(_TEND_PERIOD_S)
            with screen.waiting("stopping everything"):
                cleanup.close()
    except Stopped:
        screen.note("stopped")
    if finished and screen.differences:
        return 1
    interrupted = signals.came is signal.SIGINT or not finished
    return INTERRUPTED if interrupted else 0


@contextmanager
def _starting(directory: Path, *, screen: Screen, signals: Signals) -> Iterator[Stack]:
    """Start the stack with a sign of life; hand it over when everything answers."""
    screen.chapter(
        "0  The stack",
        "PostgreSQL, Kafka, a registry, the bridge and a consumer start here; nothing leaves this machine.",
    )
    with ExitStack() as cleanup:
        with screen.waiting("starting; the first time fetches Kafka, which takes a minute"):
            options = Options(data_dir=directory)
            stack = cleanup.enter_context(open_stack(options, say=screen.note, check=signals.check))
        yield stack


async def _until(check: Callable[[], None], work: Coroutine[Any, Any, str]) -> str:
    """Do the work, but give up as soon as `check` raises."""
    task = asyncio.ensure_future(work)
    try:
        while not task.done():
            await asyncio.wait({task}, timeout=_TEND_PERIOD_S)
            check()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    return task.result()


def _invite(stack: Stack, screen: Screen, *, key: str, kept: Path | None) -> None:
    """Say where everything is, and what to try."""
    endpoints = stack.endpoints
    bridge, consumer = _program("drx-bridge"), _program("drx-consumer")
    url = f"{endpoints['ingress']}{endpoints['sources'][SOURCE]['path']}"
    tail = f"{bridge} tail --bootstrap-servers {endpoints['bootstrap_servers']}"
    send = f"{bridge} simulate --url {url} --secret-file {shlex.quote(endpoints['sources'][SOURCE]['secret_file'])}"
    screen.chapter("It is all still running; Ctrl-C ends it", "Open a second terminal here and try:")
    screen.commands(
        [
            ("Watch events as they come, health information masked:", tail),
            ("Look at the life you have just seen, unmasked:", f"{tail} --until-end --show-phi --key {key}"),
            ("Send a hundred events of other people, some twice:", f"{send} --count 100 --duplicates 0.1"),
            ("See what the bridge measures:", f"curl -s {endpoints['management']}/metrics"),
            ("Let the commands of the consumers know where all this is:", _export(stack)),
            ("How far is the read model?", f"{consumer} lag read_model"),
            ("What has it set aside?", f"{consumer} parked list read_model"),
        ]
    )
    places = {"ingress": url, "management": endpoints["management"], "registry": endpoints.get("registry")}
    places |= {
        "kafka": endpoints["bootstrap_servers"],
        "endpoints": stack.directory.endpoints,
        "logs": endpoints["logs"],
    }
    screen.pairs(places)
    screen.note("The data goes when the demo ends." if kept is None else f"The data stays in {kept}.")


def _export(stack: Stack) -> str:
    """Write the settings of a shell; the file, which holds a password, is read by the shell and not shown."""
    read = f'import json; print(json.load(open("{stack.directory.endpoints}"))["postgres"])'
    servers = stack.endpoints["bootstrap_servers"]
    settings = f'CONSUMER_KAFKA__BOOTSTRAP_SERVERS={servers} CONSUMER_POSTGRES__DSN="$(python3 -c {shlex.quote(read)})"'
    return f"export {settings}"


def _program(name: str) -> str:
    """How the program `name`, which is installed beside this one, is called from here."""
    called = Path(sys.argv[0])
    if called.name != "drx-bridge":
        return name
    installed = called.with_name(name)
    found = shutil.which(name)
    if found is not None and Path(found).resolve() == installed.resolve():
        return name
    return shlex.quote(os.path.relpath(installed))


def _temporary_directory() -> tempfile.TemporaryDirectory[str]:
    # A broker that was killed may leave a file behind a moment later; that is no failure of the demo.
    return tempfile.TemporaryDirectory(prefix="drx-demo-", ignore_cleanup_errors=True)
