"""A process of ours from its command line to its exit code.

`run_command_line` runs any command: its exit code is what the command returns, 2 with one line on standard error if the
operator must change something, and 130 when interrupted. `run_service` is the body of a command that serves: it sets up
the log, opens the parts, runs them until SIGTERM, SIGINT or the end of one of them, and closes them. Its exit code is 0
after SIGTERM, 130 after SIGINT, and 1 with a log line when a part fails.
"""

import asyncio
import gc
import importlib
import io
import logging
import math
import os
import resource
import signal
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

import click

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.lifecycle import Worker, first_fault, run_workers, stop_on_signals, unless
from bridge.runtime.logging import configure_logging, log, output, trail

FAILED = 1
MISCONFIGURED = 2
# Characters; longer than the first sentence of any command.
_HELP_MAX = 400
INTERRUPTED = 130  # 128 + the number of SIGINT, as in a shell


class FloatRange(click.FloatRange):
    """A finite number within bounds. click's own range lets `nan` pass, and `inf` where it has no upper bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as click does, and refuse NaN and infinity."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not finite.", param, ctx)
        return number


def pairs(texts: Sequence[str], separator: str, *, usage: str) -> Iterator[tuple[str, str]]:
    """Split each of the values of an option; `UsageError` if one has no separator."""
    for text in texts:
        name, found, value = text.partition(separator)
        if not found:
            raise click.UsageError(usage)
        yield name, value


class Group(click.Group):
    """A group that lists each command with its complete first sentence."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; long descriptions wrap."""
        rows = [(name, self.commands[name].get_short_help_str(_HELP_MAX)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


class LazyGroup(Group):
    """A group with commands that are imported on use, so that a quick one does not wait for aiohttp."""

    def __init__(self, name: str | None = None, *, modules: Mapping[str, tuple[str, str]], **options: Any) -> None:
        """Take, for each command, `module:attribute` and its line in `--help`."""
        stand_ins = {each: click.Command(each, help=line) for each, (_, line) in modules.items()}
        super().__init__(name, stand_ins, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names in the order given."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command `cmd_name`, importing its module if necessary."""
        return self.load(cmd_name) or super().get_command(ctx, cmd_name)

    def load(self, name: str) -> click.Command | None:
        """Import a command, None if it is not imported on use; `ConfigError` if a library that it needs is missing."""
        if name not in self._modules:
            return None
        module, _, attribute = self._modules[name][0].partition(":")
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ModuleNotFoundError as exc:
            if exc.name is None or exc.name.partition(".")[0] == __package__.partition(".")[0]:
                raise
            msg = f"`{name}` needs {exc.name}, which is not installed: install the package with its extra `dev`"
            raise ConfigError(msg) from exc
        if not isinstance(command, click.Command):
            raise TypeError(module)
        return command


def run_command_line(cli: LazyGroup, *, program: str) -> None:
    """Run `cli` and end the process."""
    # A shell starts background jobs with SIGINT ignored, and children inherit that. A command that runs until it is
    # interrupted could then not be ended by SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As standard error: an encoding that lacks ✓, or the name of a file that is no UTF-8, ends no command.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        _import_command(cli)
        code = cli.main(standalone_mode=False, prog_name=program)
    except BridgeError as exc:
        click.echo(f"{program}: {exc}", err=True)
        sys.exit(MISCONFIGURED)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(MISCONFIGURED)
    except click.exceptions.ClickException as exc:
        click.echo(_complaint(exc, program), err=True)
        sys.exit(MISCONFIGURED)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    except OSError as exc:  # of this machine, such as a full disk at the other end of standard output
        place = f"{exc.filename}: " if exc.filename else ""
        click.echo(f"{program}: {place}{exc.strerror or type(exc).__name__}", err=True)
        sys.exit(MISCONFIGURED)
    sys.exit(code if isinstance(code, int) else 0)


def _import_command(cli: LazyGroup) -> None:
    """Import the command that is named, if one is, with garbage collection off: it took a sixth of a start's CPU.

    Importing leaves 2,000 objects of garbage, 1 MB, which are never collected.
    """
    gc.disable()
    for name in sys.argv[1:2]:
        cli.load(name)
    gc.freeze()
    gc.enable()


def _complaint(exc: click.exceptions.ClickException, program: str) -> str:
    """Describe in one line what is wrong with the command line, and name the help to read."""
    context = exc.ctx if isinstance(exc, click.exceptions.UsageError) else None
    line = " ".join(exc.format_message().split()).rstrip(".")
    return f"{context.command_path}: {line}; see `{context.command_path} --help`" if context else f"{program}: {line}"


def run_service(
    parts: AbstractAsyncContextManager[Sequence[Worker]],
    *,
    log_level: str,
    log_id_key: bytes,
    drain_timeout_s: float,
    overdue_s: float,
    gc_threshold: int,
) -> int:
    """Run a long-running process and return its exit code; `BridgeError` if the operator must change something.

    A stop has `drain_timeout_s` for the workers to end before they are cancelled, and `overdue_s` for all of it, after
    which the process exits at once.
    """
    # The same server costs 25 µs less CPU a request on uvloop. Imported here: no other command needs it.
    from uvloop import new_event_loop  # noqa: PLC0415

    configure_logging(level=log_level, id_key=log_id_key)
    keep_values_in()
    # What is loaded by now is never garbage. Not scanning it again saves 3 % of the ingress's CPU.
    gc.freeze()
    gc.set_threshold(gc_threshold)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            signals = runner.run(_run_until_stopped(parts, drain_timeout_s=drain_timeout_s, overdue_s=overdue_s))
    except (BridgeError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - Python's own report would print texts of libraries, which carry values
        log.error("worker.process_failed", code=_code(exc), where=trail(exc))
        return FAILED
    log.info("worker.stopped")
    return INTERRUPTED if signal.SIGINT in signals[:1] else 0


def keep_values_in() -> None:
    """Log uncaught exceptions by location only and disable core dumps: both could leak values."""
    sys.excepthook = lambda _kind, exc, _trace: _log_uncaught(exc)
    threading.excepthook = lambda unhandled: _log_uncaught(unhandled.exc_value)
    sys.unraisablehook = lambda unraisable: _log_uncaught(unraisable.exc_value)
    logging.captureWarnings(capture=True)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    # 1 byte allows no core file. Linux also starts no core-dump program at exactly this limit, unlike at 0
    # (fs/coredump.c).
    limit = 0 if hard == 0 else 1
    resource.setrlimit(resource.RLIMIT_CORE, (limit, limit))


def _log_uncaught(exc: BaseException | None) -> None:
    log.error("worker.uncaught", where=[] if exc is None else trail(exc))


async def _run_until_stopped(
    parts: AbstractAsyncContextManager[Sequence[Worker]], *, drain_timeout_s: float, overdue_s: float
) -> list[signal.Signals]:
    """Open and run the parts; return the signals that came."""
    stop = asyncio.Event()
    signals = stop_on_signals(stop)
    overdue = asyncio.create_task(_watch_stop(stop, signals, overdue_s))
    try:
        async with AsyncExitStack() as stack:
            # A disk or a resolver that hangs must not keep a process that may end at any time.
            workers = await unless(stop, stack.enter_async_context(parts))
            if workers is not None:
                await run_workers(workers, stop=stop, drain_timeout_s=drain_timeout_s)
    except ExceptionGroup as group:
        raise (first_fault(group, ConfigError) or group) from None
    finally:
        # Also after a failure: the interpreter would wait at its end for a thread that hangs.
        stop.set()
        await overdue
    return signals


async def _watch_stop(stop: asyncio.Event, signals: Sequence[signal.Signals], overdue_s: float) -> None:
    """Log which signal began the stop, and end the process after `overdue_s` by a thread, since the loop may hang."""
    await stop.wait()
    if signals:
        log.info("worker.stopping", code=signals[0].name)
    timer = threading.Timer(overdue_s, _exit_overdue)
    timer.daemon = True
    timer.start()


def _exit_overdue() -> None:
    log.error("worker.stop_overdue")
    output.flush()
    os._exit(FAILED)


def _code(exc: BaseException) -> str:
    """Return the code of the first of our errors in an exception; empty without any."""
    found = first_fault(exc, BridgeError) if isinstance(exc, ExceptionGroup) else None
    return found.code if found else ""
