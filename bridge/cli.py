"""`drx-bridge`: find the command and import only its module."""

import click

from bridge.runtime.process import Group, run_command_line

# Name, module and line in `--help` of each command, below its heading; a module is imported only when its command runs.
SECTIONS = {
    "Try": {
        "dev": ("bridge.dev.cli:dev", "Run the whole system on this machine."),
        "demo": ("bridge.dev.demo:demo", "Follow one prescription through the whole system."),
        "simulate": ("bridge.dev.simulate:simulate", "Sign and push deliveries as DRx or a vendor does."),
    },
    "Connect a sender": {
        "secrets": ("bridge.commands.secrets:secrets", "Create, list or check the secrets of sources."),
        "sign": ("bridge.commands.sign:sign", "Print the headers that sign a body."),
        "verify": ("bridge.commands.verify:verify", "Check whether a delivery would be accepted, and why not."),
        "map": ("bridge.commands.map:map_body", "Show the events and keys of a body, or why it would be parked."),
        "mapping": ("bridge.commands.map:mapping", "Check how a mapping file maps a vendor's bodies."),
        "push": ("bridge.commands.push:push", "Post a file of history to the running ingress."),
    },
    "Run": {
        "config": ("bridge.commands.config:config", "Show the effective settings."),
        "topics": ("bridge.commands.topics:topics", "Create, check or copy the topics."),
        "schemas": ("bridge.commands.schemas:schemas", "Check, lock, push or serve the schemas, or translate them."),
        "serve": ("bridge.commands.serve:serve", "Run the ingress."),
        "doctor": ("bridge.commands.doctor:doctor", "Check everything the ingress needs."),
    },
    "Find": {
        "tail": ("bridge.commands.tail:tail", "Show decoded records of a topic."),
        "log": ("bridge.commands.log:log", "Show the outcome of each delivery, from the ingress's log."),
        "hash-id": ("bridge.commands.hash_id:hash_id", "Print the hash that an id has in log lines."),
    },
    "Repair": {
        "unrecognized": ("bridge.commands.unrecognized:unrecognized", "List, show or replay parked deliveries."),
        "spool": ("bridge.commands.spool:spool", "Inspect or drain the spool on disk."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


@click.group(cls=Group, modules=COMMANDS, sections=SECTIONS)
@click.version_option(package_name="drx-bridge", prog_name="drx-bridge")
def cli() -> None:
    """Verified pharmacy webhooks into Kafka: never lost, forged or reordered."""


def main() -> None:
    """Run the command line."""
    run_command_line(cli, program="drx-bridge")
