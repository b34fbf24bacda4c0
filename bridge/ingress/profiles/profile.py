"""The seam behind which a source's dialect becomes events: what a profile is given and what it answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol, get_args

from bridge.event import Delivery, Event, ParkReason

Flag = Literal[
    "decimal_from_number",
    "decimal_rounded",
    "enum_unknown",
    "id_differs",
    "instant_epoch",
    "instant_naive",
    "instant_truncated",
    "integer_as_string_id",
    "leap_second",
    "string_as_integer",
    "timestamp_ahead",
]

# Every leniency a profile may report; metric labels, so the list is closed.
FLAGS: tuple[Flag, ...] = get_args(Flag)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The events of one delivery, and what had to be forgiven on the way.

    Attributes:
        events: One or more, in their order.
        flags: Leniencies that were needed, each named once, sorted.
        extensions: How many unknown subtrees were kept in the events' `extensions`.
    """

    events: tuple[Event, ...]
    flags: tuple[Flag, ...] = ()
    extensions: int = 0


class Profile(Protocol):
    """One source dialect: a module (or any object) with one pure function."""

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """Turn a verified delivery into its events, or say why it holds none; raise for no document.

        Args:
            delivery: Verified; its id, times and source go into the events.
            document: The body as `strict_json.parse` gives it. It is read, never changed.
        """
