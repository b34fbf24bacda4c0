"""`drx-bridge listen`: post events of `drx-bridge dev` as signed webhooks to a program on this machine."""

import os
import sys
from pathlib import Path

import click

from bridge.dev.files import DataDirectory, read_json
from bridge.dev.services import child_environment, shared_settings
from bridge.errors import ConfigError

_OWN = "CONSUMER_FORWARD__"


@click.command()
@click.option("--forward-to", "url", required=True, help="URL to post to, such as http://localhost:3000/drx.")
@click.option(
    "--data-dir",
    type=click.Path(path_type=Path),
    default=Path("stack"),
    show_default=True,
    help="Data directory of the running `drx-bridge dev`.",
)
def listen(*, url: str, data_dir: Path) -> int:
    """Post each new event to a URL, as the consumer `forward` does, and print the result, until Ctrl-C.

    One attempt each: nothing is retried or parked. Deliveries are signed with DATA_DIR/secrets/forward/current. Other
    settings of `forward`, such as CONSUMER_FORWARD__TYPES, apply.
    """
    directory = DataDirectory(data_dir.absolute())
    brokers = read_json(directory.endpoints).get("bootstrap_servers")
    if brokers is None:
        raise ConfigError(f"--data-dir {data_dir}: no `drx-bridge dev` is running there")
    settings = {name: value for name, value in os.environ.items() if name.startswith(_OWN)}
    settings |= shared_settings(directory) | {f"{_OWN}URL": url, "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": brokers}
    # A separate process, since `bridge` must not import consumers.
    command = [sys.executable, "-m", "consumers", "forward", "listen"]
    os.execve(sys.executable, command, child_environment(os.environ, settings))  # noqa: S606 - our own command line
