"""Which tests run in one worker, one after the other: those that share servers."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling


class ByServers(LoadScopeScheduling):  # type: ignore[misc]  # nothing is published of its types
    """Gives a worker a module at a time, but the faults of the ingress, and those of consumers, as one.

    Those of the ingress share three brokers, those of consumers are played together. (Groups by `xdist_group` have no
    effect: pytest-xdist 3.8 marks them in the ids of tests, which pytest 9.2 does not read there any more.)
    """

    def _split_scope(self, nodeid: str) -> str:
        """Name what a test runs with."""
        module = nodeid.partition("::")[0]
        if module.startswith("tests/faults/ingress/"):
            return "faults of the ingress"
        return "faults of consumers" if module.startswith("tests/faults/") else module
