"""`drx-consumer`: find the command and import only its module."""

import click

from bridge.runtime.process import LazyGroup, run_command_line

# Name, module and line in `--help` of each command; a module is imported only when its command runs.
COMMANDS = {
    "run": ("consumers.commands.run:run", "Run a consumer."),
    "init": ("consumers.commands.init:init", "Create a consumer's tables and set its starting offsets."),
    "lag": ("consumers.commands.lag:lag", "Show how far a consumer is behind, also while it is not running."),
    "where": (
        "consumers.commands.where:where",
        "Show where an event, a delivery or a prescription is, and its history.",
    ),
    "parked": ("consumers.commands.parked:parked", "List, release or discard parked records."),
    "compare": ("consumers.commands.compare:compare", "Find events of a sender's export that the read model lacks."),
    "prune": ("consumers.commands.prune:prune", "Delete settled records and history beyond a horizon."),
    "doctor": ("consumers.commands.doctor:doctor", "Check what a consumer needs, and show where PHI goes."),
    "forget": ("consumers.commands.forget:forget", "Remove the stored state of a consumer's group."),
    "forward": ("consumers.commands.forward:forward", "Show what `forward` would send."),
    "new": ("consumers.commands.new:new", "Generate a package for a new consumer."),
}


@click.group(cls=LazyGroup, modules=COMMANDS, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drx-bridge", prog_name="drx-consumer")
def cli() -> None:
    """Run and operate the consumers of the bridge's topics."""


def main() -> None:
    """Run the command line."""
    run_command_line(cli, program="drx-consumer")
