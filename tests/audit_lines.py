"""Audit lines in the standard error of a command."""

import json
from typing import Any

_MARK = '{"event":"audit",'


def audit_lines(stderr: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stderr.splitlines() if line.startswith(_MARK)]


def spoken(stderr: str) -> str:
    """Return all other lines."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not line.startswith(_MARK))


def acts(stderr: str) -> list[tuple[str, str]]:
    return [(line["verb"], line["outcome"]) for line in audit_lines(stderr)]
