"""`drx-bridge`: finds the command, loads only what it needs, and turns deliberate failures into one line and exit 2."""

from __future__ import annotations

import importlib
import sys

import click

from bridge.errors import BridgeError
from bridge.runtime.lifecycle import INTERRUPTED

# Name, where it lives, and its line in `--help`; a command's module is imported only when it runs.
COMMANDS = {
    "serve": ("bridge.commands.serve:serve", "Run the ingress."),
    "dev": ("bridge.dev.cli:dev", "Run the whole system on this machine."),
    "demo": ("bridge.dev.demo_cli:demo", "Watch one prescription go all the way."),
    "simulate": ("bridge.dev.simulate_cli:simulate", "Sign and push deliveries as DRx does."),
    "verify": ("bridge.commands.verify:verify", "Would this delivery be accepted, and if not why."),
    "tail": ("bridge.commands.tail:tail", "Show decoded records of a topic."),
    "topics": ("bridge.commands.topics:topics", "Create or check the topics."),
    "schemas": ("bridge.commands.schemas:schemas", "Check, push or serve the schemas."),
    "doctor": ("bridge.commands.doctor:doctor", "Check everything the ingress needs."),
    "config": ("bridge.commands.config:config", "Show the effective settings."),
}


class LazyGroup(click.Group):
    """A group whose commands are imported on use, so that `verify` does not wait for aiohttp."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order of `COMMANDS`."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command `cmd_name`."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(module)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drx-bridge", prog_name="drx-bridge")
def cli() -> None:
    """Verified pharmacy webhooks into Kafka: never lost, forged or reordered."""


def main() -> None:
    """Run the command line; exit 2 with one line for what the operator can mend, 130 when interrupted."""
    try:
        code = cli.main(standalone_mode=False)
    except BridgeError as exc:
        click.echo(f"drx-bridge: {exc}", err=True)
        sys.exit(2)
    except click.exceptions.NoArgsIsHelpError as exc:
        exc.show()
        sys.exit(2)
    except click.exceptions.ClickException as exc:
        click.echo(_complaint(exc), err=True)
        sys.exit(2)
    except (click.exceptions.Abort, KeyboardInterrupt):
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


def _complaint(exc: click.exceptions.ClickException) -> str:
    """Say in one line what is wrong with the command line, and where to read how it should be."""
    context = exc.ctx if isinstance(exc, click.exceptions.UsageError) else None
    line = " ".join(exc.format_message().split()).rstrip(".")
    return f"{context.command_path}: {line}; see `{context.command_path} --help`" if context else f"drx-bridge: {line}"
