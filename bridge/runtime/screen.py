"""Tables and texts for terminals."""

from rich.console import Console
from rich.table import Table

# In a pipe, rows are not wrapped, for grep.
PIPED_WIDTH = 200


def printable(content: str) -> str:
    """Escape control characters: a value comes from outside and could move a terminal's cursor."""
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in content)


def print_table(table: Table) -> None:
    """Print a table without interpreting markup, since texts come from outside."""
    console = Console(markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    console.print(table)
