"""The seam behind which a source's dialect becomes events: what a profile is given and what it answers."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

from bridge.errors import ConfigError
from bridge.event import Delivery, Event, ParkReason
from bridge.known.delivery_ids import DEDUPE_WINDOW_S
from bridge.mapping.json_body import parse as parse_json

Flag = Literal[
    "array_chosen",
    "decimal_from_number",
    "decimal_rounded",
    "enum_unknown",
    "field_unfit",
    "id_differs",
    "id_reused",
    "instant_epoch",
    "instant_naive",
    "instant_truncated",
    "integer_as_string_id",
    "leap_second",
    "local_time",
    "name_ambiguous",
    "string_as_integer",
    "time_of_receipt",
    "timestamp_ahead",
]

# Twice the tolerance of `origin`: what an operator posts is stale before its id is forgotten, whatever the scheme. What
# is a month old is no retry.
DEDUPE_WINDOW_MIN_S = 600
DEDUPE_WINDOW_MAX_S = 30 * 86_400

# Every leniency a profile may report; metric labels, so the list is closed.
FLAGS: tuple[Flag, ...] = get_args(Flag)


class Mapped(NamedTuple):
    """The events of one delivery, and the leniencies that reading it needed."""

    events: tuple[Event, ...]  # in their order; none if the delivery is ignored
    flags: tuple[Flag, ...] = ()  # leniencies that were needed, each named once, sorted

    @property
    def extensions(self) -> tuple[tuple[str, str], ...]:
        """Type of the event and JSON pointer of each member that the contract does not know."""
        return tuple(
            (event.type, pointer)
            for event in self.events
            for pointer in cast("Mapping[str, str]", event.value.get("extensions", {}))
        )


# What an operator has named to be passed over: answered, counted, and written nowhere.
IGNORED = Mapped(())


def prescription_id(outcome: Mapped | ParkReason) -> str | None:
    """Return the prescription that a delivery is about, as far as it is known."""
    if isinstance(outcome, ParkReason):
        return outcome.key
    event = outcome.events[0]
    found = event.value.get("prescription_id")
    return found if isinstance(found, str) else None


class Profile(Protocol):
    """One source dialect: a module (or any object) with one pure function.

    It may also have:

    - `configure(options)`: builds the profile of one source from its options, or raises `ConfigError`.
    - `DEDUPE_WINDOW_S`: default seconds for which ids of its sources are remembered; short if equal content may be
      another event.
    - `BUCKET_S`: for how many seconds equal bytes without an id may be a repeat; then they are another event.
    - `ARRAYS`: true if a body may be a top-level array; `map` then takes lists as well.
    - `CONTENT_TYPES`: what a body may be called beside `application/json`, whatever parameters follow.
    - `parse(body)`: reads a body that is not JSON; what `map` takes, or why the delivery is parked.
    - `reading_xml()`: the same profile for bodies of XML.
    - `PREFIX`: the beginning of all keys of its sources, which no native id has.
    - `ignoring(words)`: the same profile, which returns `IGNORED` for bodies with one of these words as their type.
    - `refusing(prefixes)`: the same profile, which parks ids that begin with one of these.
    """

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """Turn a verified delivery into its events, or return why it has none; raises for no document.

        Args:
            delivery: Verified; its id, times and source go into the events.
            document: The body as `read_body` gives it. It is read, never changed.
        """


def read_body(profile: Profile, body: bytes) -> Any:
    """Return what a profile maps, or the `ParkReason` of a body that is malformed."""
    parse = getattr(profile, "parse", None)
    return parse(body) if parse else parse_json(body, arrays=getattr(profile, "ARRAYS", False))


def dedupe_window_s(profile: Profile) -> int:
    """Default time for which ids of a source with this profile are remembered."""
    seconds: int = getattr(profile, "DEDUPE_WINDOW_S", DEDUPE_WINDOW_S)
    return seconds


def bucket_s(profile: Profile) -> int:
    """For how long equal bytes without an id may be a repeat; 0: always."""
    seconds: int = getattr(profile, "BUCKET_S", 0)
    return seconds


def refuse_unknown(options: Mapping[str, str], *known: str) -> None:
    """Raise `ConfigError` for the first option that a profile does not have."""
    for name in options:
        if name not in known:
            raise ConfigError(f"options.{name} is unknown; known: {', '.join(known) or 'none'}")
