"""The interface of profiles, which map the bodies of a source to events."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Protocol, cast, get_args

from bridge.errors import ConfigError
from bridge.event import Delivery, Event, ParkReason
from bridge.known.derived_ids import DEDUPE_WINDOW_S
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

# Seconds. At least twice the tolerance of `origin`: an operator's post is stale before its id is forgotten, with any
# scheme. A delivery a month old is not a retry.
DEDUPE_WINDOW_MIN_S = 600
DEDUPE_WINDOW_MAX_S = 30 * 86_400

# All leniencies that a profile may report; a closed list, since they are metric labels.
FLAGS: tuple[Flag, ...] = get_args(Flag)


class Mapped(NamedTuple):
    """The events of one delivery, and the leniencies used to read it."""

    events: tuple[Event, ...]  # in order; empty if the delivery is ignored
    flags: tuple[Flag, ...] = ()  # leniencies used, unique and sorted

    @property
    def extensions(self) -> tuple[tuple[str, str], ...]:
        """Event type and JSON pointer of each member that the contract does not define."""
        return tuple(
            (event.type, pointer)
            for event in self.events
            for pointer in cast("Mapping[str, str]", event.value.get("extensions", {}))
        )


# Outcome of a delivery whose type is ignored, or of an empty batch: it gets a 200 and is counted, but is not written.
IGNORED = Mapped(())


def prescription_id(outcome: Mapped | ParkReason) -> str | None:
    """Return the prescription id of a delivery, if known."""
    if isinstance(outcome, ParkReason):
        return outcome.key
    event = outcome.events[0]
    found = event.value.get("prescription_id")
    return found if isinstance(found, str) else None


class Profile(Protocol):
    """The format of a source's bodies: a module (or any object) with one pure function.

    It may also have:

    - `configure(options)`: builds the profile of one source from its options, or raises `ConfigError`.
    - `DEDUPE_WINDOW_S`: default seconds for which ids of its sources are remembered; short if equal content may be
      another event.
    - `BUCKET_S`: seconds for which equal bytes without an id may be a repeat; after that they are another event.
    - `ARRAYS`: true if a body may be a top-level array; `map` then takes lists as well.
    - `CONTENT_TYPES`: content types of bodies besides `application/json`, with any parameters.
    - `parse(body)`: reads a body that is not JSON; returns the document for `map`, or the reason to park.
    - `reading_xml()`: returns the profile for XML bodies.
    - `PREFIX`: prefix of all keys of its sources, which native ids must not have.
    - `ignoring(words)`: returns the profile that maps bodies of these types to `IGNORED`.
    - `refusing(prefixes)`: returns the profile that parks ids with these prefixes.
    """

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """Map a verified delivery to events, or to a reason to park it; never raises.

        Args:
            delivery: Verified; its id, times and source are copied to the events.
            document: The body as returned by `read_body`; must not be changed.
        """


def read_body(profile: Profile, body: bytes) -> Any:
    """Return the document for `map`, or the `ParkReason` of a malformed body."""
    parse = getattr(profile, "parse", None)
    return parse(body) if parse else parse_json(body, arrays=getattr(profile, "ARRAYS", False))


def dedupe_window_s(profile: Profile) -> int:
    """Return the default seconds for which ids of a source with this profile are remembered."""
    seconds: int = getattr(profile, "DEDUPE_WINDOW_S", DEDUPE_WINDOW_S)
    return seconds


def bucket_s(profile: Profile) -> int:
    """Return the seconds for which equal bytes without an id may be a repeat; 0: always."""
    seconds: int = getattr(profile, "BUCKET_S", 0)
    return seconds


def refuse_unknown(options: Mapping[str, str], *known: str) -> None:
    """Raise `ConfigError` for the first option that the profile does not know."""
    for name in options:
        if name not in known:
            raise ConfigError(f"options.{name} is unknown; known: {', '.join(known) or 'none'}")
