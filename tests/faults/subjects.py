"""The consumers that chance is let loose on, and how much they do between two faults."""

from contextlib import AbstractContextManager
from typing import Literal

from tests.faults.appender import LANES
from tests.faults.appending import appending
from tests.faults.forwarding import LANES as FORWARD_LANES
from tests.faults.forwarding import forwarding
from tests.faults.reading import reading
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene
from tests.topic_filler import Lives

Kind = Literal["batches", "lanes", "read_model", "forward"]
# More than a process settles in a second, since each event takes a pause: there is work left when it is killed.
RECORDS_PER_S = 200
# Events that a process handles at a time: one of each of 4 partitions in batches, or one in each lane.
_AT_A_TIME = {"batches": PARTITIONS, "lanes": LANES, "read_model": PARTITIONS, "forward": FORWARD_LANES}


def scene_with(
    ground: Ground, kind: Kind, *, busy_s: float, seed: int, session_s: str = SESSION_S
) -> AbstractContextManager[Scene]:
    lives = Lives.of_records(int(busy_s * RECORDS_PER_S), seed=seed)
    return scene_of_kind(ground, kind, lives, session_s=session_s, pause_s=_AT_A_TIME[kind] / RECORDS_PER_S)


def scene_of_kind(
    ground: Ground,
    kind: Kind,
    lives: Lives,
    *,
    partitions: int = PARTITIONS,
    session_s: str = SESSION_S,
    pause_s: float = 0.0,
) -> AbstractContextManager[Scene]:
    if kind == "read_model":
        return reading(ground, lives, partitions=partitions, session_s=session_s, pause_s=pause_s)
    if kind == "forward":
        return forwarding(ground, lives, partitions=partitions, session_s=session_s, pause_s=pause_s)
    return appending(ground, kind, lives, partitions=partitions, session_s=session_s, pause_s=pause_s)
