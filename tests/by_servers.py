"""Assign tests to workers: tests that share servers run in the same worker.

Tests with servers mostly wait, but the fault matrix needs a processor at once when it needs one. So with four or more
workers the last one runs with lower priority, and takes tests without servers as long as there are any: they use the
CPU time that the others leave.
"""

from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

MATRIX = "tests/faults/ingress/"
# Each half starts three brokers of its own.
HALVES = 2
PART = "fault matrix of the ingress, part"
CONSUMERS = "faults of consumers"
# These have one local stack.
STACK = "tests/integration/test_dev_"
# Tests that a worker still has when pytest-xdist gives it more.
UNDER_WAY = 2
# Number of workers from which one has lower priority.
BESIDE_FROM = 4
# A tenth of the others' share when all need CPU.
NICENESS = 10
# Started before other tests with servers: a long one that starts last would run alone at the end.
LONGEST = (
    "tests/integration/test_shipped_consumers.py",
    "tests/integration/forward/test_forward.py",
    "tests/integration/test_demo.py",
    STACK,
    "tests/integration/test_kafka_acls.py",
    "tests/contract/test_fhir_server.py",
)
SERVERLESS = (
    "tests/chart/",
    "tests/component/",
    "tests/fuzz/",
    "tests/monitoring/",
    "tests/simulation/",
    "tests/unit/",
)


def runs_beside(node: Any, workers: int) -> bool:
    return workers >= BESIDE_FROM and node.gateway.id == f"gw{workers - 1}"


class ByServers(LoadScopeScheduling):  # type: ignore[misc]  # nothing is published of its types
    """Gives a worker one module at a time; the faults of consumers, which run together, count as one.

    The fault matrix of the ingress, which takes longest, is split into halves. (Groups by `xdist_group` have no effect:
    pytest-xdist 3.8 marks them in test ids, which pytest 9.2 no longer reads.)
    """

    def __init__(self, config: pytest.Config, log: Any = None) -> None:
        super().__init__(config, log)
        self._numbers: dict[str, int] = {}

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        if module.startswith(MATRIX):
            number = self._numbers.setdefault(nodeid, len(self._numbers))
            return f"{PART} {number % HALVES}"
        shared = {"tests/faults/": CONSUMERS, STACK: STACK}
        return next((scope for start, scope in shared.items() if module.startswith(start)), module)

    def _reschedule(self, node: Any) -> None:
        """Give a worker more tests if it needs them; the low-priority one ends without serverless tests."""
        needs = self.workqueue and self._pending_of(self.assigned_work[node]) <= UNDER_WAY
        if needs and self._next(node) is None:
            node.shutdown()
        else:
            super()._reschedule(node)

    def _assign_work_unit(self, node: Any) -> None:
        scope = self._next(node)
        if scope is not None:
            self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    def _next(self, node: Any) -> str | None:
        """Return the next scope for a worker.

        The matrix comes first, and the faults of consumers after it: both are long and need CPU. Of the others the
        longest come first. (The order of the command line has no effect: pytest 9 collects a folder together with its
        parent.)
        """
        beside, over = runs_beside(node, self.numnodes), self._matrix_left() <= UNDER_WAY

        def rank(scope: str) -> int:
            if scope.startswith(PART):
                return 0
            if scope == CONSUMERS:
                return 1 if over else 5
            if scope.startswith(SERVERLESS) != beside:
                return 4
            return 2 if scope in LONGEST else 3

        fit = [scope for scope in self.workqueue if not (beside and scope.startswith((PART, CONSUMERS)))]
        return min(fit, key=rank, default=None)

    def _matrix_left(self) -> int:
        given = (self.workqueue, *self.assigned_work.values())
        parts = [tests for each in given for scope, tests in each.items() if scope.startswith(PART)]
        return sum(not done for tests in parts for done in tests.values())
