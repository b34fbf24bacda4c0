"""`drx-bridge dev`: run the whole system on this machine until it is stopped."""

import os
import signal
import time
from functools import partial
from pathlib import Path
from types import FrameType

import click

from bridge.dev.jars import JarCache
from bridge.dev.stack import Stack, open_stack
from bridge.runtime.process import INTERRUPTED

_say = partial(click.echo, err=True)


class Signalled(KeyboardInterrupt):
    """A signal to end was received; `code` is the exit code."""

    def __init__(self, number: signal.Signals) -> None:
        self.code = INTERRUPTED if number is signal.SIGINT else 0


def raise_on_signals() -> None:
    """Raise `Signalled` at the first signal to end; a second one kills the process."""
    came: list[int] = []

    def take(number: int, _frame: FrameType | None) -> None:
        came.append(number)
        if len(came) > 1:
            os._exit(INTERRUPTED)  # the kernel kills the children with this process
        raise Signalled(signal.Signals(number))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # SIGINT even if the shell ignores it for background jobs; SIGHUP not under nohup, to outlive the terminal.
        if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, take)


@click.command()
@click.option("--data-dir", type=click.Path(path_type=Path), help="Directory of the whole stack; created if missing.")
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True)
@click.option(
    "--ingress-port", type=click.IntRange(1, 65535), help="Port of the ingress; default: a free one, which is kept."
)
@click.option("--no-consumers", is_flag=True, help="Start no consumers.")
@click.option("--no-restart", is_flag=True, help="Do not restart processes that end.")
@click.option("--show-phi", is_flag=True, help="Show health information on the page instead of masking it.")
@click.option("--fetch-only", is_flag=True, help="Only fetch the Kafka jars into the cache of this machine.")
def dev(
    *,
    data_dir: Path | None,
    brokers: str,
    ingress_port: int | None,
    no_consumers: bool,
    no_restart: bool,
    show_phi: bool,
    fetch_only: bool,
) -> int:
    """Run Kafka, PostgreSQL, registry, ingress and consumers on this machine until SIGINT or SIGTERM.

    All data is in the data directory and survives a restart; endpoints.json in it has the address of each part.
    """
    raise_on_signals()
    started = time.monotonic()
    try:
        if fetch_only:
            JarCache().fetch(say=_say)
            return 0
        if data_dir is None:
            raise click.UsageError("Missing option '--data-dir'.")
        with open_stack(
            data_dir,
            brokers=int(brokers),
            ingress_port=ingress_port,
            consumers=not no_consumers,
            restart=not no_restart,
            show_phi=show_phi,
            say=_say,
        ) as stack:
            _print(stack, took_s=time.monotonic() - started)
            stack.keep_up()
    except Signalled as stopped:
        _say("stopped")
        return stopped.code


def _print(stack: Stack, *, took_s: float) -> None:
    _say(f"{took_s:6.1f} s  in all; Ctrl-C stops it")
    for name, source in stack.endpoints["sources"].items():
        _say(f"source {name}: POST {stack.endpoints['ingress']}{source['path']}, secret in {source['secret_file']}")
    _say(f"see it: {stack.endpoints['page']}")
    _say(f"everything else: {stack.directory.endpoints}; for commands in a shell: . {stack.directory.env}")
