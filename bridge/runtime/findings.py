"""Results of checks, one line each, with advice: `doctor` prints all, a start stops at the first failure.

A risk is a finding that fails unless the setting `accept` names it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple

import click
import orjson

from bridge.errors import ConfigError

if TYPE_CHECKING:
    from rich.text import Text

Grade = Literal["ok", "warning", "failed"]

_SYMBOLS: Mapping[Grade, tuple[str, str]] = MappingProxyType(
    {"ok": ("✓", "bold green"), "warning": ("!", "bold yellow"), "failed": ("✗", "bold red")}
)
_CHECK_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    check: str  # the subject, such as `topics`
    verdict: Grade  # `failed` means that the process cannot do its work
    text: str  # what was found; never a secret
    advice: str = ""  # advice; empty if nothing is to be done

    @property
    def sentence(self) -> str:
        """The finding and its advice."""
        return f"{self.text} → {self.advice}" if self.advice else self.text

    @property
    def document(self) -> dict[str, str | None]:
        """Return the finding as JSON types."""
        return {"check": self.check, "verdict": self.verdict, "message": self.text, "advice": self.advice or None}


class Risk(NamedTuple):
    """A risk that an operator may accept by name."""

    name: str
    text: str
    advice: str

    def judged(self, check: str, *, accepted: Collection[str], where: str, setting: str = "") -> Finding:
        """Return the finding for a risk; `where` is the setting that accepts risks, `setting` the one with the risk."""
        if self.name in accepted:
            return Finding(check, "warning", f"{self.text}; accepted ({self.name})", self.advice)
        text = f"{setting}: {self.text}" if setting else self.text
        return Finding(check, "failed", text, f"{self.advice}, or accept it: {where}={self.name}")


def failures(check: str, work: Callable[[], object], *, advice: str = "") -> Iterator[Finding]:
    """Yield a failed finding if `work` raises a `ConfigError`."""
    try:
        work()
    except ConfigError as exc:
        yield Finding(check, "failed", str(exc), advice)


def refuse(findings: Iterable[Finding]) -> None:
    """Raise `ConfigError` for the first failed finding."""
    for each in findings:
        if each.verdict == "failed":
            raise ConfigError(each.sentence)


def counted(number: int, noun: str) -> str:
    """Format a number with its noun, such as `1 event` or `3 events`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class Report:
    """Prints findings: each at once, for people, or all in one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        from rich.console import Console  # noqa: PLC0415 - not needed by a start

        self._as_json = as_json
        self._console = Console(soft_wrap=True)
        self._findings: list[Finding] = []

    def add(self, *findings: Finding) -> None:
        """Add findings, and print them if for people."""
        self._findings += findings
        for finding in () if self._as_json else findings:
            self._console.print(finding_line(finding))

    @property
    def failed(self) -> bool:
        """True if a finding failed."""
        return any(finding.verdict == "failed" for finding in self._findings)

    def close(self, code: int) -> int:
        """Print the document, with whether `code` is 0, and return the code."""
        if self._as_json:
            click.echo(orjson.dumps({"ok": code == 0, "checks": [each.document for each in self._findings]}))
        return code


def finding_line(finding: Finding) -> Text:
    """Return a finding as a line of styled text."""
    from rich.text import Text  # noqa: PLC0415 - as above

    symbol, style = _SYMBOLS[finding.verdict]
    line = Text.assemble((symbol, style), (f" {finding.check:<{_CHECK_WIDTH}} ", "bold"), finding.text)
    return line.append(f"  → {finding.advice}", "yellow") if finding.advice else line
