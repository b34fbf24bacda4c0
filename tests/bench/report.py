"""The figures as a table: median, minimum and maximum of several rounds."""

import statistics
from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

# From this value on decimals are omitted.
LARGE = 100


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= LARGE or value == int(value) else f"{value:.2f}"


def _rows(figures: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    for name, value in figures.items():
        match value:
            case dict():
                yield from _rows(value, f"{before}{name} ")
            case list():
                least, most = min(value), max(value)
                yield f"{before}{name}", f"{_number(statistics.median(value))} ({_number(least)} to {_number(most)})"
            case _:
                yield f"{before}{name}", value if isinstance(value, str) else _number(value)


def table(title: str, figures: Mapping[str, Any]) -> Table:
    """Format figures, or those of each candidate in a column."""
    columns = {each["name"]: each for each in figures.get("candidates", [{"name": "", **figures}])}
    rows = [dict(_rows({name: value for name, value in each.items() if name != "name"})) for each in columns.values()]
    shown = Table("", *columns, title=title)
    for name in rows[-1]:
        shown.add_row(name, *(each.get(name, "") for each in rows))
    return shown
