"""Which tests run in one worker, one after the other: those that share servers."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

MATRIX = "tests/faults/ingress/test_matrix.py"
# Each half starts three brokers of its own.
HALVES = 2


class ByServers(LoadScopeScheduling):  # type: ignore[misc]  # nothing is published of its types
    """Gives a worker a module at a time, but the faults of consumers, which are played together, as one.

    The fault matrix of the ingress, which takes longest, is given in halves. (Groups by `xdist_group` have no effect:
    pytest-xdist 3.8 marks them in the ids of tests, which pytest 9.2 does not read there any more.)
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        self._numbers: dict[str, int] = {}

    def _split_scope(self, nodeid: str) -> str:
        """Name what a test runs with."""
        module = nodeid.partition("::")[0]
        if module == MATRIX:
            number = self._numbers.setdefault(nodeid, len(self._numbers))
            return f"fault matrix of the ingress, part {number % HALVES}"
        if module.startswith("tests/faults/ingress/"):
            return module
        return "faults of consumers" if module.startswith("tests/faults/") else module
