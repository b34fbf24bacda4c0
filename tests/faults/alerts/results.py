from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.ingress.results import RESULTS as ROWS

# As the rows of the matrix: one JSON document a line.
RESULTS = ROWS.with_name("alerts.ndjson")


@dataclass(frozen=True, slots=True)
class Result:
    """One alert fired by its fault."""

    alert: str
    severity: str
    fault: str  # the injected fault
    factor: int  # divisor of the windows of the rules
    fired_s: float  # from the beginning of the fault until Alertmanager delivered the alert
    cleared_s: float  # from the end of the fault until Alertmanager delivered the resolution
    others: Sequence[str]  # further alerts that were delivered in that time
