"""`drx-consumer`: find the command and import only its module."""

import click

from bridge.runtime.process import Group, run_command_line

# Name, module and line in `--help` of each command, below its heading; a module is imported only when its command runs.
SECTIONS = {
    "Try": {
        "new": ("consumers.commands.new:new", "Generate a package for a new consumer."),
        "forward": ("consumers.commands.forward:forward", "Show what `forward` would send."),
    },
    "Run": {
        "init": ("consumers.commands.init:init", "Create a consumer's tables and set its starting offsets."),
        "run": ("consumers.commands.run:run", "Run a consumer."),
        "doctor": ("consumers.commands.doctor:doctor", "Check what a consumer needs, and show where PHI goes."),
        "lag": ("consumers.commands.lag:lag", "Show how far a consumer is behind, also while it is not running."),
        "prune": ("consumers.commands.prune:prune", "Delete settled records and history beyond a horizon."),
    },
    "Find": {
        "where": ("consumers.commands.where:where", "Show where an event or a prescription is, and its history."),
        "compare": ("consumers.commands.compare:compare", "Find events of an export that the read model lacks."),
    },
    "Repair": {
        "parked": ("consumers.commands.parked:parked", "List, release or discard parked records."),
        "forget": ("consumers.commands.forget:forget", "Remove the stored state of a consumer's group."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


@click.group(cls=Group, modules=COMMANDS, sections=SECTIONS)
@click.version_option(package_name="drx-bridge", prog_name="drx-consumer")
def cli() -> None:
    """Run and operate the consumers of the bridge's topics."""


def main() -> None:
    """Run the command line."""
    run_command_line(cli, program="drx-consumer")
