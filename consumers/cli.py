"""`drx-consumer`: runs consumers, which are found by the entry-point group `drx_bridge.consumers`."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points

import click

from bridge.errors import BridgeError, ConfigError

GROUP = "drx_bridge.consumers"


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="drx-bridge", prog_name="drx-consumer")
def cli() -> None:
    """Run and operate the consumers of the bridge's topics."""


@cli.command()
@click.argument("name")
def run(name: str) -> None:
    """Run the consumer NAME until it is told to stop."""
    found = {point.name: point for point in entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none is installed"
        msg = f"no consumer named {name!r} ({known}); the entry-point group is {GROUP}"
        raise ConfigError(msg)
    found[name].load()()


def main() -> None:
    """Run the command line; exit 2 with one line for what the operator can mend."""
    try:
        cli()
    except BridgeError as exc:
        click.echo(f"drx-consumer: {exc}", err=True)
        sys.exit(2)
