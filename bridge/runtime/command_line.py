"""What our command lines share: commands imported on use, failures in one line with exit code 2, who acts and why."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from bridge.errors import BridgeError
from bridge.runtime.audit import operator_name
from bridge.runtime.lifecycle import INTERRUPTED

Command = TypeVar("Command", bound=Callable[..., Any])


class LazyGroup(click.Group):
    """A group with commands that are imported on use, so that a quick one does not wait for aiohttp."""

    def __init__(self, *args: Any, modules: Mapping[str, tuple[str, str]], **options: Any) -> None:
        """Take what each command is: `module:attribute`, and its line in `--help`."""
        super().__init__(*args, **options)
        self._modules = modules

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Those that are there, then the others in the order given."""
        return [*super().list_commands(ctx), *self._modules]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`, unless it is there."""
        if cmd_name not in self._modules:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = self._modules[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing any."""
        room = formatter.width - 6 - max(map(len, self.list_commands(ctx)))  # as click does
        here = [(name, self.commands[name].get_short_help_str(room)) for name in super().list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([*here, *((name, text) for name, (_, text) in self._modules.items())])


def audit_options(command: Command) -> Command:
    """Add who acts and why, for the audit line."""
    for option in (
        click.option("--actor", default=operator_name, help="Who; the user name unless said."),
        click.option("--reason", default="", help="Why; kept with what was done."),
    ):
        command = option(command)
    return command


def run_command_line(cli: click.Group, *, program: str) -> None:
    """Run `cli` and end the process: 2 with one line for what the operator can mend, 130 when interrupted."""
    # A shell starts a job in the background with SIGINT ignored, and its children inherit that; then nothing here would
    # ever end a command that goes on until it is interrupted.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        code = cli.main(standalone_mode=False, prog_name=program)
    except BridgeError as exc:
        click.echo(f"{program}: {exc}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(2)
    except click.exceptions.ClickException as exc:
        click.echo(_complaint(exc, program), err=True)
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _complaint(exc: click.exceptions.ClickException, program: str) -> str:
    """Say in one line what is wrong with the command line, and where to read how it should be."""
    context = exc.ctx if isinstance(exc, click.exceptions.UsageError) else None
    line = " ".join(exc.format_message().split()).rstrip(".")
    return f"{context.command_path}: {line}; see `{context.command_path} --help`" if context else f"{program}: {line}"
