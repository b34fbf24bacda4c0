from collections.abc import Sequence
from dataclasses import dataclass

from tests.faults.ingress.results import RESULTS as ROWS

# As the rows of the matrix: one JSON document a line.
RESULTS = ROWS.with_name("alerts.ndjson")


@dataclass(frozen=True, slots=True)
class Result:
    """One alert fired by its fault.

    Attributes: fault: The injected fault. factor: Divisor of the windows of the rules. fired_s: From the beginning of
        the fault until Alertmanager delivered the alert. cleared_s: From the end of the fault until it delivered the
        resolution. others: Further alerts that were delivered in that time.
    """

    alert: str
    severity: str
    fault: str
    factor: int
    fired_s: float
    cleared_s: float
    others: Sequence[str]
