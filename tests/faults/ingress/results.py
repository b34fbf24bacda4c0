from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

Kind = TypeVar("Kind")

ROOT = Path(__file__).parents[3]
# One JSON document a line, so that runs may add to it one after the other.
RESULTS = ROOT / "build" / "faults" / "rows.ndjson"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one row; violations must be 0, the other figures are costs."""

    row: str  # its name in the matrix
    title: str  # its fault
    requests: int  # attempts of all kinds
    promised: int  # got a 2xx
    unavailable: int  # got a 503
    unanswered: int  # got no response
    lost: int  # promised and not kept
    foreign: int  # in the log or among the effects, but not sent in that form: forged, stale, changed
    repeated: int  # records that repeat an event
    repeated_effects: int  # effects beyond one for each event
    misordered: int  # events that were overtaken within their prescription
    worst_answer_s: float  # the longest wait for a response
    recovery_s: float  # from the end of the fault until all was in Kafka and a new delivery got a 200
    rss_peak_mib: float
    p99_calm_s: float  # p99 latency before an attack; 0 in other rows
    p99_s: float  # p99 latency during the attack
    sender_late_s: float  # the longest pause of the senders' loop


def keep(result: Any, path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(orjson.dumps(asdict(result), option=orjson.OPT_APPEND_NEWLINE))


def kept(kind: Callable[..., Kind], path: Path) -> list[Kind]:
    return [kind(**orjson.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []
