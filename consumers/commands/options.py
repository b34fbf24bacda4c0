"""Options shared by commands, which get the resulting objects."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import click

from bridge.runtime.audit import audit_options
from consumers.commands.installed import choose
from consumers.runtime.operator import By

_Command = Callable[..., int]


def of_consumer(command: _Command) -> _Command:
    """Add NAME and `--schema`, which selects a separate group; the command gets the `chosen` consumer."""

    @click.argument("name")
    @click.option("--schema", help="Schema of a second group that is built while the live one runs.")
    @wraps(command)
    def chosen(*, name: str, schema: str | None, bootstrap_servers: str | None = None, **others: Any) -> int:
        return command(chosen=choose(name, schema=schema, bootstrap_servers=bootstrap_servers), **others)

    return chosen


json_option = click.option("--json", "as_json", is_flag=True, help="One JSON line per item.")


def decision_options(*, needs_reason: bool) -> Callable[[_Command], _Command]:
    """Add `--actor`, `--reason` and `--dry-run`; the command gets them as `by`."""

    def decorate(command: _Command) -> _Command:
        @audit_options
        @click.option("--dry-run", is_flag=True, help="Print what would be done, and do nothing.")
        @wraps(command)
        def decided(*, actor: str, reason: str, dry_run: bool, **others: Any) -> int:
            if needs_reason and not reason.strip():
                raise click.UsageError("--reason is required: it is recorded with the decision")
            return command(by=By(actor, reason, dry_run=dry_run), **others)

        return decided

    return decorate


def phi_options(command: _Command) -> _Command:
    """Add `--show-phi`, `--actor` and `--reason`; without it, `by` is a dry run, which has no audit lines."""

    @click.option("--show-phi", is_flag=True, help="Show health information: the content of the records.")
    @audit_options
    @wraps(command)
    def shown(*, show_phi: bool, actor: str, reason: str, **others: Any) -> int:
        return command(show_phi=show_phi, by=By(actor, reason, dry_run=not show_phi), **others)

    return shown
