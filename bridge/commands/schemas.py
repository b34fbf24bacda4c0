"""`drx-bridge schemas`: check the schema files against the rules and lock them."""

import json
from dataclasses import asdict
from pathlib import Path

import click

from bridge.registry.loader import read_lock, read_schemas, schemas_root, write_lock
from bridge.registry.rules import Violation, findings
from bridge.runtime.process import LazyGroup

# Commands that use a registry, imported only when they run: aiohttp alone takes 0.2 s.
_IMPORTED_ON_USE = {
    "push": ("bridge.commands.schemas_push:push", "Register every locked schema under the topics of the routing."),
    "flink": ("bridge.commands.schemas_engines:flink", "Print a Flink SQL table over our topics."),
    "spark": ("bridge.commands.schemas_engines:spark", "Print PySpark code that reads an event type."),
    "masks": ("bridge.commands.schemas_engines:masks", "Print masks of health information for a Kafka UI."),
    "serve": ("bridge.commands.schemas_serve:serve", "Serve the bundled schemas, read-only."),
}


@click.group(cls=LazyGroup, modules=_IMPORTED_ON_USE)
def schemas() -> None:
    """Check, lock, push, serve or translate the schemas."""


_root_option = click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=schemas_root,
    show_default="those of this installation",
    help="Folder that holds `events`, `common` and the lock.",
)


@schemas.command()
@_root_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout.")
@click.pass_context
def check(ctx: click.Context, *, root: Path, as_json: bool) -> None:
    """Check the schemas against the rules, their readers and the lock; exit 1 on a violation."""
    files, lock = read_schemas(root), read_lock(root)
    found = findings(files, lock)
    not_locked = "The file differs from the lock; run `drx-bridge schemas lock`."
    found += [Violation(record, "", "not_locked", not_locked) for record in lock.drift(files) if record in files]
    if as_json:
        document = {"ok": not found, "records": len(files), "findings": [asdict(finding) for finding in found]}
        click.echo(json.dumps(document))
    else:
        _print(found)
        if not found:
            click.echo(f"{len(files)} records: all valid and locked", err=True)
    ctx.exit(1 if found else 0)


@schemas.command()
@_root_option
@click.pass_context
def lock(ctx: click.Context, *, root: Path) -> None:
    """Add new and changed schemas to the lock, with version and id; exit 1, and change nothing, on a violation."""
    files, before = read_schemas(root), read_lock(root)
    found = findings(files, before)
    if found:
        _print(found)
        ctx.exit(1)
    after = before.extended(files)
    write_lock(root, after)
    for entry in after.entries[len(before.entries) :]:
        click.echo(f"{entry.record}: version {entry.version}, id {entry.id}", err=True)


def _print(found: list[Violation]) -> None:
    for finding in found:
        click.echo(str(finding), err=True)
