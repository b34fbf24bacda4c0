"""The folders of the consumers, and their parts of the chart, the rules, the dashboards and the pages.

A folder of `consumers` with a `chart.yaml` is one; `alerts.yaml` and `panels.yaml` are read where it has them.
"""
# ruff: noqa: INP001 - a script next to its pages, not a package

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, slots=True)
class Folder:
    """The folder of one consumer."""

    path: Path

    @property
    def name(self) -> str:
        """Name of its entry point."""
        return self.path.name

    def read(self, file: str) -> Any:
        """Return the content of a YAML file of it, None if it does not exist."""
        path = self.path / file
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else None


def folders(root: Path = ROOT / "consumers") -> list[Folder]:
    """Return the folders of a tree, by name."""
    return [Folder(path.parent) for path in sorted(root.glob("*/chart.yaml"))]


def between(text: str, begin: str, end: str, new: str) -> str:
    """Replace the part between two lines of a text."""
    before, _, rest = text.partition(begin)
    _, _, after = rest.partition(end)
    return f"{before}{begin}{new}{end}{after}"
