"""Decide from which offset a claimed partition is read, by its progress and its log, or why it is not read."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.postgres.text import stored_text
from consumers.runtime.transport import Bounds

StartPolicy = Literal["none", "earliest", "latest"]

# It sets only partitions that have no progress; `--force` without `--partition` would move all of the group.
_INIT = "drx-consumer init {name} --from earliest|latest|TIME"
_MOVE = "drx-consumer init {name} --partition {at} --from %s --force --reason …"
# Why a partition is not read, and the remedy for an operator once all members of the group are stopped.
HINTS = {
    "not_initialized": _INIT,
    "offset_expired": f"records were deleted before they were settled; to continue without them: {_MOVE % 'earliest'}",
    "offset_beyond_end": f"the topic was recreated or truncated; to start again: {_MOVE % 'earliest|OFFSET'}",
    "batch_unreadable": f"a batch is corrupt; make another replica leader, or continue after it: {_MOVE % 'OFFSET'}",
    "topic_recreated": f"the topic was recreated or truncated; to start again: {_MOVE % 'earliest|OFFSET'}",
}


# Labels for tables, by codes that follow from offsets alone.
WORDS = {"": "", "offset_expired": "stopped: before the start", "offset_beyond_end": "stopped: beyond the end"}


def why_stopped(next_offset: int | None, bounds: Bounds) -> str:
    """Return the code, one of `WORDS`, why a partition cannot be read from `next_offset`; None if it can."""
    verdict = decide_start(Adoption(next_offset, None), bounds=bounds, policy="earliest")
    return verdict.code if isinstance(verdict, Stopped) else ""


def hint(code: str, *, consumer: str, tp: TopicPartition) -> str:
    """Return advice for an operator about a partition that is not read."""
    return HINTS[code].format(name=consumer, at=f"{tp.topic}/{tp.partition}")


class Adoption(NamedTuple):
    """The settled position of a claimed partition; both None if nothing was settled yet."""

    next_offset: int | None  # everything below is settled
    last_event_id: str | None  # `ce_id` of the record before `next_offset`; None if unknown


class Start(NamedTuple):
    """The offset where reading starts."""

    offset: int
    # `stored_text` of the `ce_id` that the record before `offset` must have; None if there is nothing to compare.
    expected_id: str | None


class Stopped(NamedTuple):
    """Why a partition is not read; codes as in `HINTS`."""

    code: str


def decide_start(
    adoption: Adoption, *, bounds: Bounds, policy: StartPolicy, has_begun: bool = False
) -> Start | Stopped:
    """Start at the group's settled position, else by the policy; never skip a gap.

    If the group `has_begun` the topic, a partition without a position is new, and read from offset 0 if empty.
    """
    offset = adoption.next_offset
    if offset is None:
        if policy == "none" and not (has_begun and bounds.end == 0):
            return Stopped("not_initialized")
        return Start(bounds.end if policy == "latest" else bounds.start, None)
    if offset < bounds.start:
        return Stopped("offset_expired")
    if offset > bounds.end:
        return Stopped("offset_beyond_end")
    # At the start of the log, the record before cannot be read any more, and none can have been missed.
    return Start(offset, adoption.last_event_id if offset > bounds.start else None)


def is_same_log(start: Start, records: Sequence[ConsumedRecord]) -> bool:
    """Return whether records read from before `start` begin with the one settled last; a gap there is not evidence."""
    first = records[0]
    return first.offset != start.offset - 1 or stored_text(first.header("ce_id")) == start.expected_id
