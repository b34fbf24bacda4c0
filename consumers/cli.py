"""`drx-consumer`: finds the command and loads only what it needs."""

import click

from bridge.runtime.process import LazyGroup, run_command_line

# Name, where it lives, and its line in `--help`; a command's module is imported only when it runs.
COMMANDS = {
    "run": ("consumers.commands.run:run", "Run a consumer."),
    "init": ("consumers.commands.init:init", "Set where a consumer begins, and make its tables."),
    "lag": ("consumers.commands.lag:lag", "How far a consumer is behind, also while it is not running."),
    "where": ("consumers.commands.where:where", "Show where an event, a delivery or a prescription is."),
    "history": ("consumers.commands.timeline:history", "The state of a prescription, and what happened to it."),
    "parked": ("consumers.commands.parked:parked", "See and settle what a consumer has set aside."),
    "compare": ("consumers.commands.compare:compare", "Show what a sender's export has and the read model lacks."),
    "prune": ("consumers.commands.prune:prune", "Delete what was settled long ago."),
    "doctor": ("consumers.commands.doctor:doctor", "Check what a consumer needs, and show where PHI goes."),
    "forget": ("consumers.commands.forget:forget", "Remove what is kept of a consumer's group."),
    "forward": ("consumers.commands.forward:forward", "Try out what `forward` would send."),
    "new": ("consumers.commands.new:new", "Begin a consumer of your own."),
}


@click.group(cls=LazyGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drx-bridge", prog_name="drx-consumer")
def cli() -> None:
    """Run and operate the consumers of the bridge's topics."""


def main() -> None:
    """Run the command line."""
    run_command_line(cli, program="drx-consumer")
