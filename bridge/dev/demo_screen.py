"""How the demo looks: chapters, the hops of a delivery, and a mark for each thing that was checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bridge.commands.tail_format import plain, printable

# Without a terminal there is no width to ask for; this fits a log viewer.
PLAIN_WIDTH = 110
# Longer values are cut on the screen; they are compared in full.
VALUE_MAX = 72
INDENT = "     "


class Screen:
    """Tells the story and counts what was checked."""

    def __init__(self, console: Console) -> None:
        """Write to `console`."""
        if not console.is_terminal:
            console.width = PLAIN_WIDTH
        self._console = console
        self.checked = 0
        self.differences: list[str] = []

    def title(self, title: str, text: str) -> None:
        """Open the show."""
        body = Text.assemble((title, "bold"), "\n", (text, "dim"))
        self._console.print(Panel(body, box=box.ROUNDED, border_style="cyan", padding=(0, 2)))

    def chapter(self, title: str, text: str) -> None:
        """Begin a part of the story."""
        self._console.print()
        self._console.rule(Text(title, "bold cyan"), align="left", style="cyan")
        self._console.print(Text(text))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show life while something takes its time."""
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self.note(text)
            yield

    def note(self, text: str) -> None:
        """Say something by the way."""
        self._console.print(Text(f"{INDENT}{text}", "dim"), soft_wrap=True)

    def hop(self, number: int, text: str) -> None:
        """Announce the next station of a delivery."""
        self._console.print(Text.assemble((f"  {number}  ", "bold cyan"), (text, "bold")))

    def pairs(self, values: Mapping[str, Any], *, omit_empty: bool = True) -> None:
        """Show names and values, one a line, nested ones in one line each."""
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in values.items():
            if not (omit_empty and value in (None, {}, [], "")):
                table.add_row(INDENT + name, Text(_short(value)))
        self._console.print(table)

    def table(self, rows: Sequence[Sequence[str]]) -> None:
        """Show rows of cells; what does not fit on a narrow screen goes on below in the last column."""
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        columns = max(map(len, rows), default=0)
        for place in range(columns):
            table.add_column(style="" if place else "dim", no_wrap=place < columns - 1)
        for first, *others in rows:
            table.add_row(INDENT + first, *others)
        self._console.print(table)

    def output(self, command: str, text: str) -> None:
        """Show what a command said to whoever ran it; never wrapped."""
        self._console.print(Text(f"{INDENT}$ {command}", "bold"), soft_wrap=True)
        for line in text.splitlines():
            self._console.print(Text(f"{INDENT}{line.rstrip()}", "cyan"), soft_wrap=True)

    def check(self, text: str, faults: Sequence[str] = ()) -> None:
        """Mark one thing as checked: fine, or with what is wrong about it."""
        self.checked += 1
        if not faults:
            self._console.print(Text.assemble(f"{INDENT}", ("✓ ", "bold green"), (text, "green")))
            return
        self.differences += [f"{text}: {fault}" for fault in faults]
        self._console.print(Text.assemble(f"{INDENT}", ("✗ ", "bold red"), (text, "red")))
        for fault in faults:
            self._console.print(Text(f"{INDENT}  {fault}", "red"))

    def step(self, title: str, told: str, *, hops: str = "", checks: int, faults: Sequence[str]) -> None:
        """Show a whole delivery in two lines: what happened, and where it went if that is to be told."""
        self.checked += checks
        self.differences += [f"{title}: {fault}" for fault in faults]
        mark = ("✗ ", "bold red") if faults else ("✓ ", "bold green")
        self._console.print(Text.assemble("  ", mark, (f"{title:<28}", "bold"), told))
        if hops:
            self._console.print(Text(f"{INDENT}{hops}", "dim"))
        for fault in faults:
            self._console.print(Text(f"{INDENT}  {fault}", "red"))

    def close(self) -> None:
        """Sum up what was checked."""
        self._console.print()
        if self.differences:
            text = Text(f"{len(self.differences)} differences in {self.checked} checks", "bold red")
            for difference in self.differences:
                text.append(f"\n{difference}", "red")
            self._console.print(Panel(text, box=box.ROUNDED, border_style="red", padding=(0, 2)))
        else:
            text = Text(
                f"{self.checked} checks, no difference: what was sent is what Kafka and PostgreSQL hold.", "bold green"
            )
            self._console.print(Panel(text, box=box.ROUNDED, border_style="green", padding=(0, 2)))

    def commands(self, lines: Sequence[tuple[str, str]]) -> None:
        """Show commands to copy, each with what it does; never wrapped."""
        for text, command in lines:
            self._console.print(Text(f"  {text}", "dim"))
            self._console.print(Text(f"    {command}\n"), soft_wrap=True)


def _short(value: object) -> str:
    shown = plain(value)
    if isinstance(shown, dict):
        shown = ", ".join(f"{name} {_short(inner)}" for name, inner in shown.items() if inner not in (None, {}, []))
    text = printable(str(shown))
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}…"
