"""What one row of the fault matrix came to, and where all of them are kept."""

from dataclasses import asdict, dataclass
from pathlib import Path

import orjson

ROOT = Path(__file__).parents[3]
# One JSON document a line, so that runs may add to it one after the other.
RESULTS = ROOT / "build" / "faults" / "rows.ndjson"


@dataclass(frozen=True, slots=True)
class Result:
    """One run of one row; the faults among the figures must be 0, the others are what it costs.

    Attributes:
        row: Its name in the matrix, and `title` what is done to the bridge.
        requests: Attempts of all kinds: `promised` were answered 2xx, `unavailable` 503, `unanswered` not at all.
        lost: Promised and not kept.
        foreign: In the log or among the effects without having been sent like that: forged, stale, changed.
        repeated: Records that repeat an event.
        unsettled: Events that a killed process may have written without writing it down, so that they may be repeated.
        repeated_effects: Effects beyond one for each event.
        misordered: Events that were overtaken within their prescription.
        wrong_answers: Answers that the contract does not allow.
        wrong_states: Prescriptions whose state is not the model's.
        leaks: Places with health information in clear.
        worst_answer_s: The longest wait for an answer, and `sender_late_s` the longest that the senders' own loop stood
            still.
        p99_calm_s: The wait of 99 of 100 deliveries before an attack, and `p99_s` beside it; 0 in other rows.
        recovery_s: From the end of the fault until all was durable in Kafka and a new delivery was answered 200.
    """

    row: str
    title: str
    seed: int
    scale: float
    requests: int
    promised: int
    unavailable: int
    unanswered: int
    lost: int
    foreign: int
    repeated: int
    repeated_effects: int
    misordered: int
    wrong_answers: int
    wrong_states: int
    leaks: int
    worst_answer_s: float
    recovery_s: float
    rss_peak_mib: float
    unsettled: int = 0
    p99_calm_s: float = 0.0
    p99_s: float = 0.0
    sender_late_s: float = 0.0


def keep(result: Result, path: Path = RESULTS) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(orjson.dumps(asdict(result), option=orjson.OPT_APPEND_NEWLINE))


def kept(path: Path = RESULTS) -> list[Result]:
    return [Result(**orjson.loads(line)) for line in path.read_bytes().splitlines()] if path.exists() else []
