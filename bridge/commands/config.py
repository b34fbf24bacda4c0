"""`drx-bridge config`: show the effective settings, secrets masked."""

from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import orjson
from pydantic import BaseModel
from rich.table import Table
from rich.text import Text

from bridge.runtime.configuration import masked
from bridge.runtime.process import MISCONFIGURED
from bridge.runtime.screen import print_table
from bridge.settings import PREFIX, Settings, load_settings
from bridge.start_checks import check_start


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON document, nested as in the TOML file.")
@click.option("--check", "only_checks", is_flag=True, help="Only check the settings as `serve` does.")
def config(*, as_json: bool, only_checks: bool) -> int:
    """Show the effective settings: environment over TOML file over defaults.

    Exit 2 if `serve` would not start with them, with all errors on standard error. Secrets and other files are read for
    this check; no connection or port is opened.
    """
    settings = load_settings()
    if not only_checks:
        _print(settings, as_json=as_json)
    refused = [each for each in check_start(settings) if each.verdict == "failed"]
    for each in refused:
        click.echo(f"drx-bridge: {each.sentence}", err=True)
    return MISCONFIGURED if refused else 0


def _print(settings: Settings, *, as_json: bool) -> None:
    if as_json:
        document = masked(settings)
        for source, digest in mappings(settings).items():
            document["sources"][source]["mapping_sha256"] = digest
        click.echo(orjson.dumps(document))
        return
    table = Table(box=None, header_style="bold")
    table.add_column("setting", no_wrap=True)
    table.add_column("value", overflow="fold")
    table.add_column("meaning", style="dim")
    for name, value, meaning, changed in rows(settings):
        table.add_row(name, Text(value, "bold green" if changed else ""), meaning)
    print_table(table)


def rows(settings: Settings) -> Iterator[tuple[str, str, str, bool]]:
    """Yield variable, value, meaning, and whether the value was given rather than the default."""
    yield from _section(settings, masked(settings), prefix=PREFIX)
    for source, digest in mappings(settings).items():
        variable = f"{PREFIX}SOURCES__{source.upper()}__OPTIONS__MAPPING"
        meaning = "hash of the mapping file; drx_mapping of its events has 12 digits of it"
        yield variable, f"sha256:{digest}", meaning, True


def mappings(settings: Settings) -> dict[str, str]:
    """Return the SHA-256 of the mapping file of each source that has one; empty for a file that cannot be read."""
    found = {}
    for name, source in settings.sources.items():
        if path := source.options.get("mapping"):
            try:
                found[name] = sha256(Path(path).read_bytes()).hexdigest()
            except OSError:
                found[name] = ""
    return found


def _section(model: BaseModel, shown: Mapping[str, Any], *, prefix: str) -> Iterator[tuple[str, str, str, bool]]:
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        variable = f"{prefix}{name.upper()}"
        if isinstance(value, BaseModel):
            yield from _section(value, shown[name], prefix=f"{variable}__")
        elif isinstance(value, Mapping) and any(isinstance(each, BaseModel) for each in value.values()):
            for key, each in value.items():
                yield from _section(each, shown[name][key], prefix=f"{variable}__{key.upper()}__")
        else:
            yield variable, _word(shown[name]), field.description or "", name in model.model_fields_set


def _word(value: object) -> str:
    if value is None or value == {}:
        return "-"
    return value if isinstance(value, str) else orjson.dumps(value).decode()
