from dataclasses import dataclass

from tests.faults.ingress.results import ROOT

RESULTS = ROOT / "build" / "faults" / "kubernetes.ndjson"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one row; the figures of requests are 0 in rows without load."""

    row: str
    title: str
    seconds: float
    requests: int = 0  # attempts of all kinds
    promised: int = 0  # got a 2xx
    lost: int = 0  # promised, and not in Kafka
    foreign: int = 0  # forged, stale or changed, and in Kafka
    misordered: int = 0
    repeated: int = 0  # records that repeat an event; no fault
    worst_answer_s: float = 0.0
