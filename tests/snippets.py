"""The configurations of balancers that docs/operations.md recommends, for tests that run them."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def haproxy() -> str:
    """The backend."""
    return _block("haproxy")


def nginx() -> str:
    """What stands in `http {}`."""
    return _block("nginx")


def envoy() -> str:
    """Routes and clusters."""
    return _block("yaml")


def _block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert isinstance(found, str)
    return found
