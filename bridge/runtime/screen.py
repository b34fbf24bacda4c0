"""Tables for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

# In a pipe the rows stay whole, for grep.
PIPED_WIDTH = 200


def print_table(table: Table) -> None:
    """Print a table without interpreting markup, since texts come from outside."""
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
