from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.ingress.results import RESULTS as ROWS

# As the rows of the matrix: one JSON document a line.
RESULTS = ROWS.with_name("alerts.ndjson")


@dataclass(frozen=True, slots=True)
class Result:
    """One alert that has been fired by its fault.

    Attributes:
        fault: What was done.
        factor: By which the windows of the rules were divided.
        fired_s: From the beginning of the fault until Alertmanager delivered the alert.
        cleared_s: From the end of the fault until it delivered that all is well.
        others: Further alerts that were delivered meanwhile.
    """

    alert: str
    severity: str
    fault: str
    factor: int
    fired_s: float
    cleared_s: float
    others: Sequence[str]
