"""Turn a native document into an event; all profiles create their records here.

A profile translates a body to native DRx: type, key and `data`, together a `Native`. `assemble` reads the `data` by the
readers of its type. So enums, decimals, instants, ranges and leniencies are the same for every source, and profiles
need not know Avro.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import NamedTuple, cast

from bridge.contract.envelope import VERSION, EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS
from bridge.event import AHEAD_MAX, Delivery, Event, ParkReason
from bridge.mapping.json_body import to_json_text
from bridge.mapping.profile import Flag, Mapped
from bridge.mapping.readers import Members, Pass, UnusableFault, blank_record, compile_members

# Members shared by the elements of a list are repeated in each event, up to this many characters in all: several times
# the largest body.
REPEATED_MAX = 2 * 1024 * 1024


class Native(NamedTuple):
    """A native document: one event in the form that DRx itself sends."""

    type: str  # of the contract
    key: str  # record key, checked
    id: str  # event id
    time: datetime  # when it happened, aware UTC
    data: dict[str, object]  # member of the contract -> JSON value
    leading: Mapping[str, object]  # leading fields of the record that the source gives: at least `account_id`


@dataclass(frozen=True, slots=True)
class EventShape:
    """Blank record and readers of an event type."""

    blank: dict[str, object]  # the record with the values shared by all events of the type
    members: Members  # readers of the members of `data`


_LEADING = frozenset(EventRecord.model_fields)


def _compile_shape(event_type: str, model: type[EventRecord]) -> EventShape:
    without = _LEADING | {"extensions", "reported_type"}  # the last is the type, which is not a member of `data`
    if issubclass(model, PrescriptionRecord):
        without -= {"prescription_id"}
    blank = blank_record(model) | {"event_type": event_type, "contract_version": VERSION}
    return EventShape(blank, compile_members(model, "/data", without=without))


SHAPES: Mapping[str, EventShape] = MappingProxyType(
    {event_type: _compile_shape(event_type, model) for event_type, model in EVENT_MODELS.items()}
)


def assemble(delivery: Delivery, native: Native, run: Pass) -> Event:
    """Read the document into the record of its type; if `run` has a fault afterwards, discard the event."""
    value = _begin(delivery, native, run.extensions)
    SHAPES[native.type].members.read(native.data, value, run)
    return _end(delivery, native, value, run)


def _begin(delivery: Delivery, native: Native, extensions: dict[str, str]) -> dict[str, object]:
    value = SHAPES[native.type].blank.copy()
    value.update(native.leading)
    value["event_id"] = native.id
    value["occurred_at"] = native.time
    value["received_at"] = delivery.received_at
    value["source"] = delivery.source
    value["environment"] = delivery.environment
    value["extensions"] = extensions
    return value


def _end(
    delivery: Delivery, native: Native, value: dict[str, object], run: Pass, *, mapping: str = "", sha256: str = ""
) -> Event:
    if native.time - delivery.received_at > AHEAD_MAX:
        run.flags.add("timestamp_ahead")
    return Event(
        id=native.id,
        type=native.type,
        source=delivery.source,
        key=native.key,
        occurred_at=native.time,
        received_at=delivery.received_at,
        value=value,
        mapping=mapping,
        sha256=sha256,
    )


class Part(NamedTuple):
    """One field of a vendor's event."""

    value: object  # JSON value in native terms; null means absent
    # The vendor's path for reporting a fault: array indexes as `*`, only names that the mapping file has.
    path: str
    pointers: frozenset[str] = frozenset()  # pointers of members that the field holds completely


@dataclass(slots=True)
class Draft:
    """One event of a vendor; a field of a nested record is named `record.field`."""

    type: str  # of the contract
    number: str  # position in the vendor's list, from 1, or table name; the event id is `<id>/<number>`
    key: str  # record key and, if the type has one, prescription id; checked
    parts: dict[str, Part] = field(default_factory=dict)  # fields that the vendor gives, by name
    # JSON values, in native terms, for fields that the vendor lacks.
    constants: Mapping[str, object] = field(default_factory=dict)
    # Values copied into the record unchanged, including leading fields.
    finished: Mapping[str, object] = field(default_factory=dict)
    id: str = ""  # prefix of the event id, if it differs from the reading's
    time: datetime | None = None  # when it happened, if it differs from the reading's
    mapping: str = ""  # see `Event.mapping`
    at: str = ""  # pointer of its element, if the body has several elements
    repeated_by: list[str] = field(default_factory=list)  # pointers of elements that only repeat it
    sha256: str = ""  # see `Event.sha256`


@dataclass(slots=True)
class Reading:
    """Values shared by the drafts of one body."""

    id: str  # prefix of the event ids
    time: datetime  # when it happened, aware UTC
    # Pointers of members that an event holds completely, and of envelope members.
    claimed: set[str] = field(default_factory=set)
    dropped: set[str] = field(default_factory=set)  # pointers of members to drop
    drops: Callable[[str], bool] = lambda _: False  # true for names of members to drop, at any depth
    elements: set[str] = field(default_factory=set)  # pointers of the elements
    flags: set[Flag] = field(default_factory=set)  # leniencies used


def compose(
    delivery: Delivery, document: object, drafts: Sequence[Draft], reading: Reading, *, key: str | None = None
) -> Mapped | ParkReason:
    """Turn the drafts of one body into its events, or into a reason to park it under `key`.

    An optional field that does not fit is left out, so that a whole-record push is not parked for a wrong price.
    Members that no event holds go to `extensions` (see `_shares`).
    """
    run = Pass()
    run.flags = reading.flags
    events = []
    for draft in drafts:
        leading = {
            "prescription_id": draft.key if "prescription_id" in SHAPES[draft.type].members.puts else None,
            **draft.finished,
        }
        event_id = f"{draft.id or reading.id}/{draft.number}"
        native = Native(draft.type, draft.key, event_id, draft.time or reading.time, {}, leading)
        value = _begin(delivery, native, {})
        _read_draft(draft, value, run, reading)
        events.append(_end(delivery, native, value, run, mapping=draft.mapping, sha256=draft.sha256))
    if run.worst is not None:
        return ParkReason("unusable", run.worst.name.lower(), run.field, key)
    shares = _shares(unsaid(document, reading), drafts, reading.elements)
    for event, share in zip(events, shares, strict=True):
        cast("dict[str, str]", event.value["extensions"]).update(share)
    return Mapped(tuple(events), tuple(sorted(run.flags)))


def _shares(kept: Mapping[str, str], drafts: Sequence[Draft], elements: Collection[str]) -> list[dict[str, str]]:
    """Divide the unclaimed members: each event gets those of its element, of enclosing elements, and of repeating ones.

    Beyond `REPEATED_MAX`, only the first event gets shared members. If an element has several events, the first gets
    its members. Members of an ignored element, which has no event, are dropped.
    """
    shares: list[dict[str, str]] = [{} for _ in drafts]
    firsts: dict[str, int] = {}
    for number, draft in enumerate(drafts):
        firsts.setdefault(draft.at, number)
    heirs = {pointer: [number] for number, draft in enumerate(drafts) for pointer in draft.repeated_by}
    for place, number in firsts.items():
        for owner in _owners(place, elements):
            heirs.setdefault(owner, []).append(number)
    repeated = 0
    for pointer, text in kept.items():
        found = heirs.get(_owners(pointer, elements)[-1], [])
        repeated += len(text) * (len(found) - 1)
        for number in found if repeated <= REPEATED_MAX else found[:1]:
            shares[number][pointer] = text
    return shares


def _owners(pointer: str, elements: Collection[str]) -> list[str]:
    """Return the pointers that enclose a pointer: the body's, then the elements', outermost first."""
    if not elements:
        return [""]
    return ["", *(at for at in (*pointers_around(pointer)[1:], pointer) if at and at in elements)]


def pointers_around(pointer: str) -> list[str]:
    """Return the pointers of everything that encloses a member, the body's first."""
    return [pointer[: match.start()] for match in re.finditer("/", pointer)]


def _read_draft(draft: Draft, value: dict[str, object], run: Pass, reading: Reading) -> None:
    members = SHAPES[draft.type].members
    parts: dict[str, dict[str, Part]] = {}
    silent = set()
    for name, part in draft.parts.items():
        top = name.partition(".")[0]
        if part.value is not None:
            parts.setdefault(top, {})[name] = part
        elif top != name and top not in members.required:
            silent.add(top)
    # A nested record of constants only is not created.
    silent -= parts.keys()
    for name, constant in draft.constants.items():
        if (top := name.partition(".")[0]) not in silent:
            parts.setdefault(top, {})[name] = Part(constant, f"/{name.replace('.', '/')}")
    for name in members.required:
        if name not in parts and value.get(name) is None:
            absent = draft.parts.get(name)
            run.fault(UnusableFault.MISSING_FIELD, absent.path if absent else f"/{name}")
    for name, each in parts.items():
        if (out := _read_field(name, each, members, run, reading)) is not None:
            value.update(out)


def _read_field(
    name: str, parts: dict[str, Part], members: Members, run: Pass, reading: Reading
) -> dict[str, object] | None:
    """Read one field into members of the record, or return None.

    If a part of a nested record does not fit, the record is read again without that part.
    """
    unfit: dict[str, tuple[UnusableFault, str]] = {}
    while parts:
        item = parts[name].value if name in parts else _nest(parts)
        attempt, out = Pass(), dict[str, object]()
        members.puts[name](out, item, attempt)
        if attempt.worst is None:
            run.flags |= attempt.flags
            # Unknown members are kept from the body itself, not from this translated object.
            if unfit:
                run.flags.add("field_unfit")
            if not attempt.extensions:
                for part in parts.values():
                    reading.claimed |= part.pointers
            return out
        dotted = attempt.field.removeprefix(members.path).strip("/").replace("/", ".")
        if dotted in parts:
            unfit[dotted] = attempt.worst, parts.pop(dotted).path
        else:
            unfit.setdefault(dotted, (attempt.worst, next(iter(parts.values())).path))
            parts.clear()
    if name in members.required:
        detail, path = unfit[dotted]
        run.fault(detail, path)
    run.flags.add("field_unfit")
    return None


def _nest(parts: Mapping[str, Part]) -> dict[str, object]:
    root: dict[str, object] = {}
    for dotted, part in parts.items():
        *way, last = dotted.split(".")[1:]
        inner = root
        for step in way:
            inner = cast("dict[str, object]", inner.setdefault(step, {}))
        inner[last] = part.value
    return root


# Pointers as a tree: step -> the steps below it; a pointer ends at an empty one.
_Steps = dict[str, "_Steps"]


def unsaid(document: object, reading: Reading) -> dict[str, str]:
    """Return the unclaimed members as JSON, each under the highest pointer without a claim below it.

    Nulls are not kept: a vendor that pushes whole records sends dozens. Dropped members are removed without separate
    pointers, so that a sender cannot repeat a long name in thousands of pointers.
    """
    kept: dict[str, str] = {}
    divided = {around for at in reading.elements for around in pointers_around(at)}

    def walk(node: object, pointer: str, claimed: _Steps, dropped: _Steps | None) -> None:
        for name, child in children(node):
            claim, out = claimed.get(name), dropped.get(name) if dropped else None
            # `_ends` inlined: this runs for every member of a body.
            if (claim is not None and not claim) or (out is not None and not out) or reading.drops(name):
                continue
            at = f"{pointer}/{escaped(name)}"
            if claim is not None or at in divided:
                walk(child, at, claim or {}, out)
            elif (rest := _rest(child, out, reading.drops)) is not None:
                kept[at] = to_json_text(rest)

    walk(document, "", _steps(reading.claimed), _steps(reading.dropped))
    return kept


def _steps(pointers: Iterable[str]) -> _Steps:
    root: _Steps = {}
    # Short pointers first: each covers everything below it.
    for pointer in sorted(pointers, key=len):
        node = root
        *way, last = steps_of(pointer)
        for step in way:
            if _ends(node.get(step)):
                break
            node = node.setdefault(step, {})
        else:
            node.setdefault(last, {})
    return root


def _ends(steps: _Steps | None) -> bool:
    return steps is not None and not steps


def children(node: object) -> Iterable[tuple[str, object]]:
    """Return the members of an object, or the elements of an array by position; empty for a scalar."""
    if isinstance(node, dict):
        return node.items()
    return ((str(index), child) for index, child in enumerate(node)) if isinstance(node, list) else ()


def escaped(name: str) -> str:
    """Write a member's name as a step of a JSON pointer (RFC 6901, section 3)."""
    return name.replace("~", "~0").replace("/", "~1") if "/" in name or "~" in name else name


def steps_of(pointer: str) -> list[str]:
    """Return the steps of a JSON pointer, unescaped."""
    steps = pointer.split("/")[1:]
    return [step.replace("~1", "/").replace("~0", "~") for step in steps] if "~" in pointer else steps


def _rest(node: object, dropped: _Steps | None, drops: Callable[[str], bool]) -> object:
    """Remove nulls and dropped members from a value; None if nothing is left."""
    if not isinstance(node, dict | list) or not node:
        return node
    rest: list[tuple[str, object]] = []
    for name, child in children(node):
        out = dropped.get(name) if dropped else None
        is_kept = not _ends(out) and not drops(name)
        rest.append((name, _rest(child, out, drops) if is_kept else None))
    if all(child is None for _, child in rest):
        return None
    # An empty element keeps its position.
    return [child for _, child in rest] if isinstance(node, list) else {n: c for n, c in rest if c is not None}
