"""The consumers that chance is let loose on, and how much they do between two faults."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Literal

from tests.faults.appending import appending
from tests.faults.forwarding import forwarding
from tests.faults.reading import reading
from tests.faults.scene import PARTITIONS, SESSION_S, Ground, Scene
from tests.topic_filler import Lives

Kind = Literal["batches", "lanes", "read_model", "forward"]
# More than each settles in a second: the appender pauses at every event, and the read model has never
# been seen to be faster, on any machine; nor has the sink of `forward`, a server of threads.
RECORDS_PER_S = {"batches": 800, "lanes": 500, "read_model": 12_000, "forward": 800}
# Batches of 4 partitions at a time, and 4 lanes of a process.
_PAUSE_S = {"batches": 0.005, "lanes": 0.01}


def scene_with(
    ground: Ground, kind: Kind, *, busy_s: float, seed: int, session_s: str = SESSION_S
) -> AbstractContextManager[Scene]:
    """Set a scene with enough records to keep the consumer busy for that long."""
    lives = Lives.of_records(int(busy_s * RECORDS_PER_S[kind]), seed=seed)
    return scene_of_kind(ground, kind, lives, session_s=session_s, pause_s=_PAUSE_S.get(kind, 0.0))


def scene_of_kind(
    ground: Ground,
    kind: Kind,
    lives: Lives,
    *,
    partitions: int = PARTITIONS,
    session_s: str = SESSION_S,
    pause_s: float = 0.0,
) -> AbstractContextManager[Scene]:
    """Set a scene; only the appender pauses."""
    if kind == "read_model":
        return reading(ground, lives, partitions=partitions, session_s=session_s)
    if kind == "forward":
        return forwarding(ground, lives, partitions=partitions, session_s=session_s)
    return appending(ground, kind, lives, partitions=partitions, session_s=session_s, pause_s=pause_s)
