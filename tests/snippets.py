"""The balancer configurations of the documentation, for tests that run them."""

import re
from pathlib import Path

_ROOT = Path(__file__).parents[1]
PAGE = _ROOT / "docs" / "operations.md"
CHART_PAGE = _ROOT / "helm" / "drx-bridge" / "README.md"


def haproxy(page: Path = PAGE) -> str:
    (found,) = re.findall(r"```haproxy\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    return str(found)
