"""What a doctor finds: one line for each check, with what to do about a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import click
import orjson
from rich.console import Console
from rich.text import Text

Grade = Literal["ok", "warning", "failed"]

_SYMBOLS: Mapping[Grade, tuple[str, str]] = MappingProxyType(
    {"ok": ("✓", "bold green"), "warning": ("!", "bold yellow"), "failed": ("✗", "bold red")}
)
_CHECK_WIDTH = 14


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check.

    Attributes:
        check: What was looked at, such as `topics`.
        verdict: `failed` means that the process cannot do its work.
        says: What was found; never a secret.
        advice: What to do; empty when there is nothing to do.
    """

    check: str
    verdict: Grade
    says: str
    advice: str = ""


def counted(number: int, noun: str) -> str:
    """Write a number before what it counts, such as `1 event` or `3 events`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


class Report:
    """Prints findings as they come, for people, or all of them as one JSON document."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._console = Console(soft_wrap=True)
        self._findings: list[Finding] = []

    def tell(self, finding: Finding) -> None:
        """Add one."""
        self._findings.append(finding)
        if not self._as_json:
            self._console.print(finding_line(finding))

    @property
    def failed(self) -> bool:
        """Whether one of them says that the process cannot do its work."""
        return any(finding.verdict == "failed" for finding in self._findings)

    def close(self, code: int) -> int:
        """Print the document, which says whether `code` is 0, and return the code."""
        if self._as_json:
            checks = [
                {"check": each.check, "verdict": each.verdict, "says": each.says, "advice": each.advice or None}
                for each in self._findings
            ]
            click.echo(orjson.dumps({"ok": code == 0, "checks": checks}))
        return code


def finding_line(finding: Finding) -> Text:
    """Return what people see of a finding."""
    symbol, style = _SYMBOLS[finding.verdict]
    line = Text.assemble((symbol, style), (f" {finding.check:<{_CHECK_WIDTH}} ", "bold"), finding.says)
    return line.append(f"  → {finding.advice}", "yellow") if finding.advice else line
