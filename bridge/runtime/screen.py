"""Tables and strings for terminals."""

from rich.console import Console
from rich.table import Table

# Characters in which practically every row fits whole, for grep in a pipe.
WHOLE_WIDTH = 1_000


def printable(content: str) -> str:
    """Escape control characters: a value comes from outside and could move a terminal's cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in content)


def print_table(table: Table, *, whole: bool = False) -> None:
    """Print a table without interpreting markup, as values come from outside; if `whole`, the terminal wraps rows."""
    console = Console(markup=False)
    if whole or not console.is_terminal:
        console.width = WHOLE_WIDTH
    console.print(table)
