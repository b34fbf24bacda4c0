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
    """One run of one row; violations must be 0, the other figures are costs.

    Attributes: row: Its name in the matrix, and `title` its fault. requests: Attempts of all kinds: `promised` got a
        2xx, `unavailable` a 503, `unanswered` no response. lost: Promised and not kept. foreign: In the log or among
        the effects, but not sent in that form: forged, stale, changed. repeated: Records that repeat an event.
        repeated_effects: Effects beyond one for each event. misordered: Events that were overtaken within their
            prescription. worst_answer_s: The longest wait for a response, and `sender_late_s` the longest pause of the
            senders' loop. p99_calm_s: The p99 latency before an attack, and `p99_s` during it; 0 in other rows.
            recovery_s: From the end of the fault until all was durable in Kafka and a new delivery got a 200.
    """

    row: str
    title: str
    requests: int
    promised: int
    unavailable: int
    unanswered: int
    lost: int
    foreign: int
    repeated: int
    repeated_effects: int
    misordered: int
    worst_answer_s: float
    recovery_s: float
    rss_peak_mib: float
    p99_calm_s: float
    p99_s: float
    sender_late_s: float


def keep(result: Any, path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(orjson.dumps(asdict(result), option=orjson.OPT_APPEND_NEWLINE))


def kept(kind: Callable[..., Kind], path: Path) -> list[Kind]:
    return [kind(**orjson.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []
