"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from bridge.runtime.audit import audit_options

Command = TypeVar("Command", bound=Callable[..., Any])


def name_argument(command: Command) -> Command:
    """Add NAME of the consumer, and the schema that makes a group of its own."""
    command = click.option("--schema", help="Schema of the one that is built beside the live one.")(command)
    return click.argument("name")(command)


def json_option(command: Command) -> Command:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON line per item.")(command)


def decision_options(command: Command) -> Command:
    """Add who decides, why, and the dry run."""
    return click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")(
        audit_options(command)
    )


def require_reason(reason: str) -> None:
    """Refuse an empty reason.

    Raises:
        UsageError: It is empty.
    """
    if not reason.strip():
        msg = "--reason is needed: it is kept with the decision"
        raise click.UsageError(msg)
