"""The folders of the consumers, and what each brings to the chart, the rules, the dashboards and the pages.

A folder of `consumers` with a `chart.yaml` is one; `alerts.yaml` and `panels.yaml` are read where it has them.
"""
# ruff: noqa: INP001 - a script beside its pages, no package

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Folder:
    """Of one consumer."""

    path: Path

    @property
    def name(self) -> str:
        """That of its entry point."""
        return self.path.name

    def read(self, file: str) -> Any:
        """Return what a YAML file of it holds, None if it has none."""
        path = self.path / file
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def folders(root: Path = ROOT / "consumers") -> list[Folder]:
    """Return those of a tree, by name."""
    return [Folder(path.parent) for path in sorted(root.glob("*/chart.yaml"))]


def between(text: str, begin: str, end: str, new: str) -> str:
    """Replace what stands between two lines of a text."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{new}{end}{after}"
