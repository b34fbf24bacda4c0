"""The consumers of random faults, and their number of records between faults."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Literal

from tests.faults.appender import LANES
from tests.faults.appending import appending
from tests.faults.archiving import archiving
from tests.faults.forwarding import LANES as FORWARD_LANES
from tests.faults.forwarding import forwarding
from tests.faults.messaging import sending
from tests.faults.reading import reading
from tests.faults.recording import Server, writing
from tests.faults.scene import PARTITIONS, Ground, Scene
from tests.faults.starting import calling
from tests.temporal.server import TemporalServer
from tests.topic_filler import Lives

Kind = Literal["batches", "lanes", "read_model", "forward"]
# Consumers that write to other systems, without pauses.
Writer = Literal["fhir", "hl7v2", "workflow", "archive"]
# More than a process settles in a second, since each event takes a pause: there is work left when it is killed.
RECORDS_PER_S = 200
# Events that a process handles at a time: one of each of 4 partitions in batches, or one in each lane.
_AT_A_TIME = {"batches": PARTITIONS, "lanes": LANES, "read_model": PARTITIONS, "forward": FORWARD_LANES}


def scene_with(ground: Ground, kind: Kind, *, busy_s: float, seed: int) -> AbstractContextManager[Scene]:
    lives = Lives.of_records(int(busy_s * RECORDS_PER_S), seed=seed)
    return scene_of_kind(ground, kind, lives, pause_s=_AT_A_TIME[kind] / RECORDS_PER_S)


@contextmanager
def scene_of_kind(
    ground: Ground, kind: Kind | Writer, lives: Lives, *, partitions: int = PARTITIONS, pause_s: float = 0.0
) -> Iterator[Scene]:
    with ExitStack() as stack:
        match kind:
            case "fhir":
                yield stack.enter_context(writing(ground, lives, stack.enter_context(Server())))
            case "hl7v2":
                yield stack.enter_context(sending(ground, lives))
            case "workflow":
                server = TemporalServer(ground.directory, options=("-Xmx2g",))
                yield stack.enter_context(calling(ground, lives, stack.enter_context(server)))
            case "archive":
                yield stack.enter_context(archiving(ground, lives, partitions=partitions))[0]
            case "read_model":
                yield stack.enter_context(reading(ground, lives, partitions=partitions, pause_s=pause_s))
            case "forward":
                yield stack.enter_context(forwarding(ground, lives, partitions=partitions, pause_s=pause_s))
            case _:
                yield stack.enter_context(appending(ground, kind, lives, partitions=partitions, pause_s=pause_s))
