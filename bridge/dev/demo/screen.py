"""How the demo looks: chapters, the hops of a delivery, and a mark for each thing that was checked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich import box
from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from bridge.commands.tail_format import plain, printable
from bridge.dev.services import Output

# Without a terminal there is no width to ask for; this fits a log viewer.
PLAIN_WIDTH = 110
# Longer values are cut on the screen; they are compared in full.
VALUE_MAX = 72
INDENT = "     "
EMPTY: tuple[object, ...] = (None, {}, [], "")


class Screen:
    """Tells the story, counts the checks and collects the differences."""

    def __init__(self) -> None:
        self._console = Console()
        if not self._console.is_terminal:
            self._console.width = PLAIN_WIDTH
        self.checked = 0
        self.differences: list[str] = []

    def panel(self, title: str, text: str, *, style: str) -> None:
        """Show a frame: a title and what it says."""
        body = Text.assemble(
            (title, "bold" if style == "cyan" else f"bold {style}"), "\n" if text else "", (text, "dim")
        )
        self._console.print(Panel(body, box=box.ROUNDED, border_style=style, padding=(0, 2)))

    def chapter(self, title: str, text: str) -> None:
        """Begin a part of the story."""
        self._console.print()
        self._console.rule(Text(title, "bold cyan"), align="left", style="cyan")
        self._console.print(Text(text))

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """Show that something takes its time: a spinner on a terminal, else a line."""
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self.line(text)
            yield

    def line(self, text: str, style: str = "dim") -> None:
        """Write a line as it is, never wrapped."""
        self._console.print(Text(f"{INDENT}{text}", style), soft_wrap=True)

    def output(self, output: Output) -> None:
        """Show a command and what it printed."""
        self.line(f"$ {output.command}", "bold")
        for line in output.text.splitlines():
            self.line(line.rstrip(), "cyan")

    def hop(self, number: int, text: str) -> None:
        """Announce the next station of a delivery."""
        self._console.print(Text.assemble((f"  {number}  ", "bold cyan"), (text, "bold")))

    def pairs(self, values: Mapping[str, Any]) -> None:
        """Show names and values, one a line and cut; empty values are left out."""
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        table.add_column(style="dim", no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for name, value in values.items():
            if value not in EMPTY:
                table.add_row(INDENT + name, Text(_short(value)))
        self._console.print(table)

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Show rows of four cells; what does not fit on a narrow screen wraps in the last one."""
        table = Table(box=None, show_header=False, padding=(0, 1), pad_edge=False)
        for style, no_wrap in (("dim", True), ("", True), ("", True), ("", False)):
            table.add_column(style=style, no_wrap=no_wrap)
        for first, *others in rows:
            table.add_row(INDENT + first, *others)
        self._console.print(table)

    def check(self, text: str, faults: Sequence[str] = (), *, title: str = "", hops: str = "", count: int = 1) -> None:
        """Mark what was checked as fine or show what is wrong about it.

        Args:
            text: What must hold; with a `title`, what happened.
            faults: What does not.
            title: The type of an event; then the line is about a whole delivery.
            hops: Where that delivery went.
            count: Checks that the line stands for.
        """
        self.checked += count
        self.differences += [f"{title or text}: {fault}" for fault in faults]
        mark, color = ("✗ ", "red") if faults else ("✓ ", "green")
        told = (f"{title:<28}", "bold") if title else ""
        indent = "  " if title else INDENT
        self._console.print(Text.assemble(indent, (mark, f"bold {color}"), told, (text, "" if title else color)))
        for line, style in ((hops, "dim"), *((f"  {fault}", "red") for fault in faults)):
            if line:
                self._console.print(Text(f"{INDENT}{line}", style))

    def close(self) -> None:
        """Sum up the checks."""
        self._console.print()
        if self.differences:
            head = f"{len(self.differences)} differences in {self.checked} checks"
            self.panel(head, "\n".join(self.differences), style="red")
        else:
            fine = f"{self.checked} checks, no difference: Kafka, PostgreSQL, receiver and lake hold what was sent."
            self.panel(fine, "", style="green")


def _short(value: object) -> str:
    shown = plain(value)
    if isinstance(shown, dict):
        shown = ", ".join(f"{name} {_short(inner)}" for name, inner in shown.items() if inner not in EMPTY)
    text = printable(str(shown))
    return text if len(text) <= VALUE_MAX else f"{text[: VALUE_MAX - 1]}…"
