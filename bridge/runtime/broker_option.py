"""The option `--bootstrap-servers`, which overrides the settings of a command."""

from typing import TypeVar

import click

from bridge.runtime.configuration import FileSettings

_Settings = TypeVar("_Settings", bound=FileSettings)


bootstrap_option = click.option("--bootstrap-servers", help="host:port,…; default: …_KAFKA__BOOTSTRAP_SERVERS.")


def with_brokers(settings: _Settings, bootstrap_servers: str | None) -> _Settings:
    """Return the settings with `bootstrap_servers`, or unchanged if the option is not given."""
    if bootstrap_servers is None:
        return settings
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})  # type: ignore[attr-defined]  # both configurations have it
    return settings.model_copy(update={"kafka": kafka})
