"""Native DRx, contract v1: one body, one event.

Source: docs/contract.md §3 (the event) and §2 (precedence of reasons).
"""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import cast

from bridge.contract.envelope import VERSION, EventRecord
from bridge.contract.events import OTHER_REPORTED, is_reported_type
from bridge.event import Delivery, ParkReason
from bridge.mapping.assemble import SHAPES, Native, assemble
from bridge.mapping.profile import IGNORED, Mapped
from bridge.mapping.readers import (
    Members,
    Pass,
    UnusableFault,
    compile_members,
    guarded,
    put_nothing,
    put_text,
    read_instant,
    text_of_id,
)
from bridge.mapping.record_keys import KEY_RULES, prescription_key, readable_prescription

# Leading fields not filled by a member of the same name: our own, renamed, or read from `data`.
_NOT_IN_ENVELOPE = frozenset(EventRecord.model_fields) - {"account_id", "sequence", "correlation_id"}
# Members of the body that `map` reads itself, since each has its own reason or detail.
_READ_APART = ("id", "type", "version", "timestamp", "environment", "data")


def _compile_envelope() -> Members:
    members = compile_members(EventRecord, "", without=_NOT_IN_ENVELOPE)
    apart = dict.fromkeys(_READ_APART, put_nothing)
    # `source` in the record is the configured sender; the body's `source`, the platform instance, is its origin.
    return Members("", {**members.puts, **apart, "source": put_text("origin_source", "/source")}, members.required)


# A type that the contract does not define becomes `other.reported`.
_TYPES = frozenset(SHAPES) - {OTHER_REPORTED}
_ENVELOPE = _compile_envelope()
_read_timestamp = guarded("/timestamp", read_instant, wrong=UnusableFault.BAD_TIME, beyond=UnusableFault.BAD_TIME)


def map(  # noqa: A001 - the name in `Profile`
    delivery: Delivery, document: dict[str, object], /, prefixes: tuple[str, ...] = ()
) -> Mapped | ParkReason:
    """See `Profile.map`; `prefixes` are key prefixes that are configured for other sources."""
    event_type, leading = document.get("type"), dict[str, object]()
    if type(event_type) is not str or event_type not in _TYPES:
        key = readable_prescription(document, prefixes)
        if not is_reported_type(event_type) or (key is None and text_of_id(document.get("account_id")) is None):
            return ParkReason("unknown_type", field="/type", key=key)
        event_type, leading["reported_type"] = OTHER_REPORTED, event_type
    if document.get("environment") != delivery.environment:
        return ParkReason("environment_mismatch", field="/environment", key=readable_prescription(document, prefixes))
    run = Pass(prefixes)
    key = KEY_RULES.get(event_type, prescription_key)(document, run)
    time = _read_envelope(delivery, document, leading, run)
    body = document.get("data")
    if time is None:
        pass  # noted now; faults of `data` have lower precedence
    elif type(body) is dict:
        if event_type == OTHER_REPORTED:
            body = _without_unreadable_key(document, body, run)
        event = assemble(delivery, Native(event_type, key, delivery.id, time, body, leading), run)
        if run.worst is None:
            return Mapped((event,), tuple(sorted(run.flags)))
    else:
        run.fault(UnusableFault.MISSING_FIELD if body is None else UnusableFault.WRONG_TYPE, "/data")
    return ParkReason(
        "unusable", cast("UnusableFault", run.worst).name.lower(), run.field, readable_prescription(document, prefixes)
    )


def _without_unreadable_key(document: dict[str, object], body: dict[str, object], run: Pass) -> dict[str, object]:
    """Keep an invalid prescription id as an unknown member."""
    item = body.get("prescription_id")
    if item is None or readable_prescription(document, run.prefixes) is not None:
        return body
    run.keep("/data", "prescription_id", item)
    return {name: value for name, value in body.items() if name != "prescription_id"}


@dataclass(frozen=True, slots=True)
class NativeProfile:
    """Native DRx without the types in `ignore`; `prefixes` are key prefixes of other sources."""

    prefixes: tuple[str, ...] = ()
    ignore: frozenset[str] = frozenset()

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped | ParkReason:
        """See `Profile.map`."""
        if type(event_type := document.get("type")) is str and event_type in self.ignore:
            return IGNORED
        return map(delivery, document, prefixes=self.prefixes)

    def refusing(self, prefixes: tuple[str, ...]) -> "NativeProfile":
        """Return the profile that refuses ids with these prefixes."""
        return replace(self, prefixes=prefixes)

    def ignoring(self, words: frozenset[str]) -> "NativeProfile":
        """Return the profile that ignores these types."""
        return replace(self, ignore=words)


refusing, ignoring = NativeProfile().refusing, NativeProfile().ignoring


def _read_envelope(
    delivery: Delivery, document: dict[str, object], leading: dict[str, object], run: Pass
) -> datetime | None:
    """Read the envelope, and return the event's time; None if the time is a fault."""
    _compare_id(document.get("id"), delivery.id, run)
    time = _read_timestamp(document.get("timestamp"), run)
    if document.get("version") != VERSION:
        run.fault(UnusableFault.BAD_VERSION, "/version")
    _ENVELOPE.read(document, leading, run)
    return cast("datetime | None", time)


def _compare_id(item: object, webhook_id: str, run: Pass) -> None:
    """Note if the body's id differs from the delivery's; the header wins, since senders keep it on retries."""
    if item is None or item == webhook_id:
        return
    text = text_of_id(item)
    if text is None:
        run.fault(UnusableFault.BAD_ID, "/id")
        return
    if type(item) is int:
        run.flags.add("integer_as_string_id")
    if text != webhook_id:
        run.flags.add("id_differs")
