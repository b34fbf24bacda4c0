"""Output of commands: tables for people, not wrapped in a pipe, and JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson
from rich.table import Table
from rich.text import Text

from bridge.event import plain
from bridge.runtime import screen

TIME = "%Y-%m-%d %H:%M:%SZ"  # for people; an aware UTC time


def print_json(*documents: Any, indented: bool = False) -> None:
    """Print each document as one line, unless `indented`."""
    for each in documents:
        option = orjson.OPT_UTC_Z | (orjson.OPT_INDENT_2 if indented else 0)
        click.echo(orjson.dumps(each, default=plain, option=option))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print rows; None is a dash, numbers are right-aligned."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        cells = ["-" if cell is None else str(cell) for cell in row]
        justified = ["right" if isinstance(cell, int | float) else "left" for cell in row]
        table.add_row(*(Text(cell, justify=side) for cell, side in zip(cells, justified, strict=True)))  # type: ignore[arg-type]  # one of two literals
    screen.print_table(table, whole=True)  # a key that is cut cannot be given to the next command
