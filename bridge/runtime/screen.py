"""Output of commands: tables and strings for people, not wrapped in a pipe, and JSON for programs."""

from collections.abc import Iterable, Sequence
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from bridge.event import plain

# Characters in which practically every row fits whole, for grep in a pipe.
WHOLE_WIDTH = 1_000
TIME = "%Y-%m-%d %H:%M:%SZ"  # for people; an aware UTC time


def printable(content: str) -> str:
    """Escape control characters: a value comes from outside and could move a terminal's cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in content)


def print_table(table: Table, *, whole: bool = False) -> None:
    """Print a table without interpreting markup, as values come from outside; if `whole`, the terminal wraps rows."""
    console = Console(markup=False)
    if whole or not console.is_terminal:
        console.width = WHOLE_WIDTH
    console.print(table)


def print_rows(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table of rows; None is a dash, numbers are right-aligned."""
    table = Table(box=None, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    for row in rows:
        cells = ["-" if cell is None else str(cell) for cell in row]
        justified = ["right" if isinstance(cell, int | float) else "left" for cell in row]
        table.add_row(*(Text(cell, justify=side) for cell, side in zip(cells, justified, strict=True)))  # type: ignore[arg-type]  # one of two literals
    print_table(table, whole=True)  # a key that is cut cannot be given to the next command


def print_json(*documents: Any, indented: bool = False) -> None:
    """Print each document as one line, unless `indented`."""
    for each in documents:
        option = orjson.OPT_UTC_Z | (orjson.OPT_INDENT_2 if indented else 0)
        click.echo(orjson.dumps(each, default=plain, option=option))
