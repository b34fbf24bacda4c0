"""Run a process, from its command line to its exit code.

`run_command_line` runs any command. The exit code is the command's result, 2 with one line on standard error (or the
help, without arguments) if the operator must change something, and 130 if interrupted. `run_service` runs the parts of
a service: it sets up the log, opens the parts, runs them until SIGTERM, SIGINT or the end of one of them, and closes
them. The exit code is 0 after SIGTERM, 130 after SIGINT, and 1 with a log line if a part fails.
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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from types import MappingProxyType
from typing import Any, TypeVar

import click

from bridge.errors import BridgeError, ConfigError
from bridge.runtime.configuration import FileSettings
from bridge.runtime.lifecycle import Worker, first_fault, run_workers, stop_on_signals, unless
from bridge.runtime.logging import configure_logging, log, output, silence_kafka_client, trail

FAILED = 1
MISCONFIGURED = 2
# Characters; longer than the first sentence of any command.
_HELP_MAX = 400
INTERRUPTED = 130  # 128 + the number of SIGINT, as in a shell
_Settings = TypeVar("_Settings", bound=FileSettings)
_Command = TypeVar("_Command", bound=Callable[..., Any])


class FloatRange(click.FloatRange):
    """A finite number within bounds; click's own range accepts `nan`, and `inf` without an upper bound."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Convert as click does, and refuse NaN and infinity."""
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not finite.", param, ctx)
        return number


def pairs(texts: Sequence[str], separator: str, *, usage: str) -> Iterator[tuple[str, str]]:
    """Split each value of an option; `UsageError` if one has no separator."""
    for text in texts:
        name, found, value = text.partition(separator)
        if not found:
            raise click.UsageError(usage)
        yield name, value


def combined(*options: Callable[[Any], Any]) -> Callable[[_Command], _Command]:
    """Return a decorator that adds several options to a command, in the order of its `--help`."""

    def add(command: _Command) -> _Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


bootstrap_option = click.option("--bootstrap-servers", help="host:port,…; default: …_KAFKA__BOOTSTRAP_SERVERS.")


def with_brokers(settings: _Settings, bootstrap_servers: str | None) -> _Settings:
    """Return the settings with `bootstrap_servers`, or unchanged if the option is not given."""
    if bootstrap_servers is None:
        return settings
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})  # type: ignore[attr-defined]  # both configurations have it
    return settings.model_copy(update={"kafka": kafka})


class Group(click.Group):
    """A group that lists each command with its complete first sentence, and imports those of `modules` when used.

    So other commands do not import aiohttp.
    """

    def __init__(
        self, name: str | None = None, *, modules: Mapping[str, tuple[str, str]] = MappingProxyType({}), **options: Any
    ) -> None:
        """`modules`: for each command, `module:attribute` and its line in `--help`."""
        self._modules = modules
        self._sections: Mapping[str, Iterable[str]] = options.pop("sections", {})  # names by their heading in the help
        stand_ins = {each: click.Command(each, help=line) for each, (_, line) in modules.items()}
        super().__init__(name, stand_ins, **options)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands; long descriptions wrap."""
        names = self.list_commands(ctx)
        width = max(map(len, names))
        for heading, listed in (self._sections or {"Commands": names}).items():
            with formatter.section(heading):
                rows = [(f"{each:<{width}}", self.commands[each].get_short_help_str(_HELP_MAX)) for each in listed]
                formatter.write_dl(rows)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names in the order given."""
        return list(self.commands)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command `cmd_name`, importing its module if necessary."""
        return self.load(cmd_name) or super().get_command(ctx, cmd_name)

    def load(self, name: str) -> click.Command | None:
        """Import a command; None if it is not in the group, `ConfigError` if a library that it needs is missing."""
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


def run_command_line(cli: Group, *, program: str) -> None:
    """Run `cli` and end the process."""
    # Shells start background jobs with SIGINT ignored, which children inherit. Then SIGINT could not end a command that
    # runs until interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # As Python does for standard error: printing ✓ in an ASCII locale, or a file name not in UTF-8, must not fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    silence_kafka_client()
    try:
        _import_command(cli)
        code = cli.main(standalone_mode=False, prog_name=program, help_option_names=["-h", "--help"])
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
    except OSError as exc:  # such as a full disk at the other end of standard output
        place = f"{exc.filename}: " if exc.filename else ""
        click.echo(f"{program}: {place}{exc.strerror or type(exc).__name__}", err=True)
        sys.exit(MISCONFIGURED)
    sys.exit(code if isinstance(code, int) else 0)


def _import_command(cli: Group) -> None:
    """Import the command without garbage collection, which would take a sixth of a start's CPU.

    In return, the 2,000 objects (1 MB) that imports leave as garbage are frozen and never freed.
    """
    gc.disable()
    for name in sys.argv[1:2]:
        cli.load(name)
    gc.freeze()
    gc.enable()


def _complaint(exc: click.exceptions.ClickException, program: str) -> str:
    """Describe an error of the command line in one line, with the command that shows its help."""
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

    At shutdown, workers have `drain_timeout_s` before they are cancelled; after `overdue_s` in all, the process exits
    immediately.
    """
    # uvloop saves 25 µs of CPU per request. Imported here, since no other command needs it.
    from uvloop import new_event_loop  # noqa: PLC0415

    configure_logging(level=log_level, id_key=log_id_key)
    keep_values_in()
    # Objects loaded up to now never become garbage. Not scanning them saves 3 % of the ingress's CPU.
    gc.freeze()
    gc.set_threshold(gc_threshold)
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            signals = runner.run(_run_until_stopped(parts, drain_timeout_s=drain_timeout_s, overdue_s=overdue_s))
    except (BridgeError, KeyboardInterrupt):
        raise
    except BaseException as exc:  # noqa: BLE001 - Python's report would contain values
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
    """Open and run the parts; return the signals received."""
    stop = asyncio.Event()
    signals = stop_on_signals(stop)
    overdue = asyncio.create_task(_watch_stop(stop, signals, overdue_s))
    try:
        async with AsyncExitStack() as stack:
            # A hanging disk or resolver must not keep the process from ending.
            workers = await unless(stop, stack.enter_async_context(parts))
            if workers is not None:
                await run_workers(workers, stop=stop, drain_timeout_s=drain_timeout_s)
    except ExceptionGroup as group:
        raise (first_fault(group, ConfigError) or group) from None
    finally:
        # Also after a failure: otherwise the interpreter would wait at exit for a hanging thread.
        stop.set()
        await overdue
    return signals


async def _watch_stop(stop: asyncio.Event, signals: Sequence[signal.Signals], overdue_s: float) -> None:
    """Log which signal began the stop; a thread exits after `overdue_s`, since the event loop may hang."""
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
    """Return the code of the first of our errors in an exception; empty if there is none."""
    found = first_fault(exc, BridgeError) if isinstance(exc, ExceptionGroup) else None
    return found.code if found else ""
