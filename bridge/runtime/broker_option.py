"""The option `--bootstrap-servers`, which overrides the settings of a command."""

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.runtime.configuration import FileSettings

_Command = TypeVar("_Command", bound=Callable[..., Any])
_Settings = TypeVar("_Settings", bound=FileSettings)


def bootstrap_option(command: _Command) -> _Command:
    """Add `--bootstrap-servers`."""
    return click.option("--bootstrap-servers", help="host:port,…; default: …_KAFKA__BOOTSTRAP_SERVERS.")(command)


def with_brokers(settings: _Settings, bootstrap_servers: str | None) -> _Settings:
    """Return the settings with `bootstrap_servers`, or unchanged if the option is not given."""
    if bootstrap_servers is None:
        return settings
    kafka = settings.kafka.model_copy(update={"bootstrap_servers": bootstrap_servers})  # type: ignore[attr-defined]  # both configurations have it
    return settings.model_copy(update={"kafka": kafka})
