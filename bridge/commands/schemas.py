"""`drx-bridge schemas`: check the schema files against the rules and lock them."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from bridge.registry.loader import read_lock, read_schemas, schemas_root, write_lock
from bridge.registry.rules import Violation, findings
from bridge.runtime.process import Group

# Commands that use a registry, imported only when they run: aiohttp alone takes 0.2 s.
_IMPORTED_ON_USE = {
    "push": ("bridge.commands.schemas_push:push", "Register every locked schema under the topics of the routing."),
    "flink": ("bridge.commands.schemas_engines:flink", "Print a Flink SQL table over our topics."),
    "masks": ("bridge.commands.schemas_engines:masks", "Print masks of health information for a Kafka UI."),
    "serve": ("bridge.commands.schemas_serve:serve", "Serve the bundled schemas, read-only."),
}


@click.group(cls=Group, modules=_IMPORTED_ON_USE)
def schemas() -> None:
    """Check and lock, push, serve or translate the schemas."""


@schemas.command()
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=schemas_root,
    show_default="those of this installation",
    help="Folder that holds `events`, `common` and the lock.",
)
@click.option(
    "--lock", "locks", is_flag=True, help="Add new and changed schemas to the lock, unless a rule is violated."
)
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def check(ctx: click.Context, *, root: Path, locks: bool, as_json: bool) -> None:
    """Check the schemas against the rules, their readers and the lock; exit 1 on a violation."""
    files, lock = read_schemas(root), read_lock(root)
    found = findings(files, lock)
    if locks and not found:
        before, lock = lock, lock.extended(files)
        write_lock(root, lock)
        for entry in lock.entries[len(before.entries) :]:
            click.echo(f"{entry.record}: version {entry.version}, id {entry.id}", err=True)
    not_locked = "The file differs from the lock; run `drx-bridge schemas check --lock`."
    found += [Violation(record, "", "not_locked", not_locked) for record in lock.drift(files) if record in files]
    if as_json:
        document = {"ok": not found, "records": len(files), "findings": [asdict(finding) for finding in found]}
        click.echo(json.dumps(document))
    else:
        for finding in found:
            click.echo(str(finding), err=True)
        if not found:
            click.echo(f"{len(files)} records: all valid and locked", err=True)
    ctx.exit(1 if found else 0)
