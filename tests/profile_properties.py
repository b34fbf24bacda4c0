"""Properties of a profile that hold for any document, for property tests."""

import re
import sys
from collections.abc import Callable, Mapping
from datetime import date, datetime
from decimal import MAX_EMAX, MIN_EMIN, Context, Decimal
from types import FrameType
from typing import Any

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event, ParkReason
from bridge.mapping.json_body import Real, parse
from bridge.mapping.profile import FLAGS, Mapped
from bridge.mapping.readers import UnusableFault
from bridge.response_codes import PARKED
from tests.builders import codec
from tests.unit.profile_documents import SAMPLES, leaves

NATIVE = [parse(path.read_bytes()) for path in sorted(SAMPLES.glob("native/*.json"))]
DETAILS = {detail.name.lower() for detail in UnusableFault}
# Contract names and `*`, and no names from a source.
PATH = re.compile(r"(/[A-Za-z0-9_]+|/\*)*")

RENAMED = {"type": "event_type", "version": "contract_version", "timestamp": "occurred_at", "source": "origin_source"}

# No field has more digits before the point than this value, or fewer than two after it.
WIDE = Context(prec=60, Emax=MAX_EMAX, Emin=MIN_EMIN, traps=[])
QUANTUM = Decimal("0.005")


def holders(value: object) -> list[dict[str, Any] | list[Any]]:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [holder for one in inner for holder in holders(one)]
    return [value, *found] if isinstance(value, dict | list) and value else found


def assert_closed(outcome: Mapped | ParkReason) -> None:
    """Check that an outcome has only values of the closed lists."""
    if isinstance(outcome, ParkReason):
        assert outcome.reason in PARKED
        assert (outcome.detail in DETAILS) == (outcome.reason == "unusable")
        assert PATH.fullmatch(outcome.field)
        assert outcome.key is None or re.fullmatch(r"(?:[A-Za-z0-9._:-]|%3A){1,128}", outcome.key)
    else:
        assert set(outcome.flags) <= set(FLAGS)


def step_into(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step.replace("~1", "/").replace("~0", "~")]
    return value


def says(event: Event, pointer: str, leaf: object) -> bool:
    """Return whether an event has the value of its body at `pointer`: in `extensions`, or in a field of the record."""
    kept: Any = event.value["extensions"]
    _, *steps = pointer.split("/")
    for length in range(1, len(steps) + 1):
        if (text := kept.get("/" + "/".join(steps[:length]))) is not None:
            unknown: Any = parse(f'{{"kept":{text}}}'.encode())
            return bool(step_into(unknown["kept"], steps[length:]) == leaf)
    way = steps[1:] if steps[0] == "data" else [RENAMED.get(steps[0], steps[0])]
    value = step_into(event.value, way)
    if isinstance(value, str) and value == leaf:
        return True
    if value == "UNKNOWN" and way[-1].isdigit():
        return leaf in step_into(event.value, [*way[:-2], f"raw_{way[-2]}"])
    if value == "UNKNOWN":
        return bool(step_into(event.value, [*way[:-1], f"raw_{way[-1]}"]) == leaf)
    return is_told(value, leaf)


def is_told(value: object, leaf: object) -> bool:
    """Return whether a value of a record equals that of its body, in a form that the contract allows.

    Rounded numbers and times are close to the original; separate tests check how close.
    """
    lexeme = leaf.lexeme if isinstance(leaf, Real) else str(leaf)
    told = False
    match value:
        case None | bool():
            told = value is leaf
        case list():
            told = value == leaf
        case dict():
            # An empty object is a record of nulls.
            told = value == leaf or (leaf == {} and set(value.values()) == {None})
        case str():
            told = type(leaf) is int and value == lexeme
        case int():
            told = type(leaf) in (int, str) and value == int(lexeme)
        case Decimal():
            told = type(leaf) in (int, str, Real) and abs(value - WIDE.create_decimal(lexeme)) <= QUANTUM
        case datetime():
            told = type(leaf) in (int, str, Real)
        case date():
            told = value.isoformat() == leaf
    return told


def assert_writable(event: Event) -> None:
    """Check that an event is a valid value of its record, and survives encoding and decoding."""
    model = EVENT_MODELS[event.type]
    assert model.model_validate(dict(event.value)).model_dump() == event.value
    assert codec().decode(codec().encode(f"drx.v1.{model.__name__}", event.value)).value == event.value


def assert_nothing_lost(event: Event, document: Mapping[str, object]) -> None:
    """Check that an event has all values of its body."""
    for pointer, leaf in leaves(document):
        # The event's id is that of the header; a body that is only a leaf of `data` is empty.
        assert pointer in ("/id", "/data") or says(event, pointer, leaf), pointer


def opcodes_of(call: Callable[[], object]) -> int:
    """Count the Python instructions of a call: a measure of work that is independent of the machine's load."""
    count = 0

    def step(frame: FrameType, event: str, _: object) -> Any:
        nonlocal count
        frame.f_trace_opcodes = True
        count += event == "opcode"
        return step

    before = sys.gettrace()
    sys.settrace(step)
    try:
        call()
    finally:
        sys.settrace(before)
    return count
