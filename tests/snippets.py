"""The configuration of a balancer that docs/operations.md recommends, for tests that run it."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = Path(__file__).parents[1] / "docs" / "operations.md"


def haproxy() -> str:
    (found,) = re.findall(r"```haproxy\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)
