"""`drx-bridge dev`: the whole system on this machine until it is stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Coroutine
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from bridge.dev.jars import JarCache
from bridge.dev.stack import Options, Stack, open_stack
from bridge.errors import ConfigError
from bridge.runtime.logging import silence_kafka_client
from bridge.runtime.process import INTERRUPTED

T = TypeVar("T")

# A signal, and a killed process, are noticed within this time.
TEND_PERIOD_S = 0.2


class Stopped(BaseException):
    """A signal ended the start; like KeyboardInterrupt it is no failure."""


class Signals:
    """Remembers the first signal that asks for the end; a second one ends everything at once."""

    def __init__(self) -> None:
        """Listen from now on, also where the shell had us ignore SIGINT."""
        self.came: signal.Signals | None = None
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._take)
        # Ignored under nohup: the process should outlive the terminal.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            signal.signal(signal.SIGHUP, self._take)

    def _take(self, number: int, _frame: FrameType | None) -> None:
        if self.came is not None:
            # The kernel ends the children with us.
            os._exit(INTERRUPTED)
        self.came = signal.Signals(number)

    def check(self) -> None:
        """Raise `Stopped` once a signal has come."""
        if self.came is not None:
            raise Stopped

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run `work` to its end on a loop of its own, or raise `Stopped` once a signal has come."""

        async def watched() -> T:
            task = asyncio.ensure_future(work)
            try:
                while not task.done():
                    await asyncio.wait({task}, timeout=TEND_PERIOD_S)
                    self.check()
            finally:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
            return task.result()

        return asyncio.run(watched())


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of the whole stack; created if missing.")
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True)
@click.option(
    "--ingress-port", type=click.IntRange(1, 65535), help="Port of the ingress; default: a free one, which is kept."
)
@click.option("--no-consumers", is_flag=True, help="Start no consumers.")
@click.option("--no-restart", is_flag=True, help="Do not restart processes that end.")
@click.option("--fetch-only", is_flag=True, help="Only fetch the Kafka jars into the cache of this machine.")
def dev(
    *,
    data_dir: Path | None,
    brokers: str,
    ingress_port: int | None,
    no_consumers: bool,
    no_restart: bool,
    fetch_only: bool,
) -> int:
    """Run Kafka, PostgreSQL, registry, ingress and consumers on this machine until SIGINT or SIGTERM.

    Everything lives under the data directory and survives a restart; endpoints.json in it has the address of each part.
    """
    signals = Signals()
    if data_dir is None and not fetch_only:
        msg = "Missing option '--data-dir'."
        raise click.UsageError(msg)
    silence_kafka_client()
    started = time.monotonic()
    try:
        if data_dir is None:
            JarCache().fetch(say=_say, check=signals.check)
            return 0
        options = Options(
            data_dir=data_dir,
            brokers=int(brokers),
            ingress_port=ingress_port,
            consumers=not no_consumers,
            restart=not no_restart,
        )
        with open_stack(options, say=_say, check=signals.check) as stack:
            _tell(stack, took_s=time.monotonic() - started)
            while signals.came is None:
                stack.tend()
                time.sleep(TEND_PERIOD_S)
            _say("stopping")
    except Stopped:
        _say("stopped while starting")
    except OSError as exc:
        # A full disk, or files of a directory that another user made.
        msg = f"{exc.filename or data_dir}: {exc.strerror or type(exc).__name__}"
        raise ConfigError(msg) from exc
    return INTERRUPTED if signals.came is signal.SIGINT else 0


def _say(line: str) -> None:
    click.echo(line, err=True)


def _tell(stack: Stack, *, took_s: float) -> None:
    _say(f"{took_s:6.1f} s  in all; Ctrl-C stops it")
    for name, source in stack.endpoints["sources"].items():
        _say(f"source {name}: POST {stack.endpoints['ingress']}{source['path']}, secret in {source['secret_file']}")
    _say(f"everything else: {stack.directory.endpoints}")
