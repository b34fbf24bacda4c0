"""Whatever a document holds, it becomes a writable event that loses nothing, or a reason of a closed list."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event, ParkReason, Reason
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.passing import Detail
from bridge.ingress.profiles.profile import FLAGS, Mapped
from bridge.ingress.strict_json import DEPTH_MAX, Real, parse, to_json_text
from bridge.kafka.codec import Codec
from bridge.registry.loader import read_schemas, schemas_root
from tests.unit.profile_documents import SAMPLES, a_delivery, leaves

NATIVE = [parse(path.read_bytes()) for path in sorted(SAMPLES.glob("native/*.json"))]
DETAILS = {detail.name.lower() for detail in Detail}
# Contract names, `*`, and nothing that a source could have put there.
PATH = re.compile(r"(/[a-z0-9_]+|/\*)*")

RENAMED = {"type": "event_type", "version": "contract_version", "timestamp": "occurred_at", "source": "origin_source"}

texts = st.sampled_from(
    [
        "",
        "UNKNOWN",
        "req:1",
        "q:1",
        "30",
        "-1.5",
        "007",
        "2026-09-14",
        "2026-09-14T15:09:60",
        "0000-00-00",
        "dispensed",
        "\x00",
        "~/*",
    ]
) | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
reals = st.sampled_from(["-0", "0.0", "1.5", "3.0", "1e308", "1e-300", "0e999999", "1e11", "1789398566.5355555"]).map(
    Real
)
scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.integers(-3, 3)
    | st.floats(allow_nan=False, allow_infinity=False).map(repr).filter(lambda lexeme: not lexeme.isdigit()).map(Real)
    | reals
    | texts
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


@cache
def codec() -> Codec:
    schemas = read_schemas(schemas_root())
    return Codec(schemas=schemas, ids={name: number for number, name in enumerate(schemas, start=1)})


def holders(value: object) -> list[dict[str, Any] | list[Any]]:
    """Give every non-empty object and array of a document."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    found = [holder for one in inner for holder in holders(one)]
    return [value, *found] if isinstance(value, dict | list) and value else found


@st.composite
def mutants(draw: st.DrawFn) -> dict[str, object]:
    """Draw a sample with one to four members set, taken out, added or put in another's place."""
    document: dict[str, object] = copy.deepcopy(draw(st.sampled_from([one for one in NATIVE if isinstance(one, dict)])))
    for _ in range(draw(st.integers(1, 4))):
        places = holders(document)
        assume(places)
        holder: Any = draw(st.sampled_from(places))
        place = draw(st.sampled_from(list(holder) if isinstance(holder, dict) else range(len(holder))))
        action = draw(st.sampled_from(["set", "set", "take", "add", "retell"]))
        if action == "set":
            holder[place] = draw(values)
        elif action == "take":
            del holder[place]
        elif action == "add" and isinstance(holder, dict):
            holder[draw(texts | st.sampled_from(["raw_sex", "event_id", "extensions", "patient", "sequence"]))] = draw(
                values
            )
        elif action == "retell" and isinstance(holder[place], int):
            holder[place] = str(holder[place])
    return document


def outcome_of(document: Mapping[str, object]) -> Mapped | ParkReason:
    parsed = parse(to_json_text(document).encode())
    assert isinstance(parsed, dict)
    return drx_standard.map(a_delivery(), parsed)


def assert_closed(outcome: Mapped | ParkReason) -> None:
    """Check that an outcome says only what the closed lists have."""
    if isinstance(outcome, ParkReason):
        assert outcome.reason in get_args(Reason)
        assert (outcome.detail in DETAILS) == (outcome.reason == "unusable")
        assert PATH.fullmatch(outcome.field)
        assert outcome.key is None or re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", outcome.key)
    else:
        assert set(outcome.flags) <= set(FLAGS)


def step_into(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step.replace("~1", "/").replace("~0", "~")]
    return value


def says(event: Event, pointer: str, leaf: object) -> bool:
    """Tell whether an event says what its body said at `pointer`: in `extensions`, or in a field of the record."""
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
    if isinstance(value, str):
        return type(leaf) is int and value == str(leaf)
    return (value is None) == (leaf is None)


@given(mutants())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_a_mutated_sample_is_an_event_that_can_be_written_or_a_reason(document: dict[str, object]) -> None:
    outcome = outcome_of(document)

    assert_closed(outcome)
    if isinstance(outcome, Mapped):
        (event,) = outcome.events
        model = EVENT_MODELS[event.type]
        record = f"drx.v1.{model.__name__}"
        assert model.model_validate(dict(event.value)).model_dump() == event.value
        assert codec().decode(codec().encode(record, event.value)).value == event.value


@given(mutants())
@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_an_accepted_body_loses_nothing(document: dict[str, object]) -> None:
    outcome = outcome_of(document)
    assume(isinstance(outcome, Mapped))
    assert isinstance(outcome, Mapped)

    for pointer, leaf in leaves(document):
        # The header is the event's id whatever the body says; a leaf of `data` alone is an empty body.
        assert pointer in ("/id", "/data") or says(outcome.events[0], pointer, leaf), pointer


@given(st.dictionaries(texts, values, max_size=5))
@settings(max_examples=100, deadline=None)
def test_any_document_has_a_reason(document: dict[str, object]) -> None:
    outcome = outcome_of(document)

    assert_closed(outcome)
    assert isinstance(outcome, ParkReason)


@given(st.sampled_from(list(EVENT_MODELS)), st.dictionaries(texts, values, max_size=5) | values)
@settings(max_examples=150, deadline=None)
def test_any_data_of_a_known_type_has_an_outcome(event_type: str, data: object) -> None:
    outcome = outcome_of({"type": event_type, "environment": "sandbox", "version": "1", "timestamp": 0, "data": data})

    assert_closed(outcome)


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_the_deepest_and_widest_unknowns_are_kept(event_type: str) -> None:
    deep: object = []
    for _ in range(DEPTH_MAX - 3):
        deep = {"": deep}
    sample = next(one for one in NATIVE if isinstance(one, dict) and one["type"] == event_type)
    data: Any = sample["data"]
    outcome = outcome_of({**sample, "data": {**data, "deep": deep}, **{f"x{n}": n for n in range(5_000)}})

    assert isinstance(outcome, Mapped)
    assert outcome.extensions == 5_001


@given(reals | st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=200, deadline=None)
def test_a_number_as_time_is_a_moment_or_a_bad_time(number: object) -> None:
    sample = NATIVE[0]
    assert isinstance(sample, dict)
    outcome = outcome_of({**sample, "timestamp": number})

    assert isinstance(outcome, Mapped) or outcome.detail == "bad_time"
    if isinstance(outcome, Mapped):
        assert isinstance(outcome.events[0].occurred_at, datetime)
        assert "instant_epoch" in outcome.flags


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9) + 1, max_value=10**9 - 1, places=3))
@settings(max_examples=100, deadline=None)
def test_a_decimal_that_fits_comes_out_equal(number: Decimal) -> None:
    sample = next(one for one in NATIVE if isinstance(one, dict) and one["type"] == "fill.status_changed")
    data: Any = sample["data"]
    outcome = outcome_of({**sample, "data": {**data, "quantity_dispensed": f"{number:f}"}})

    assert isinstance(outcome, Mapped)
    assert outcome.events[0].value["quantity_dispensed"] == number
    assert "decimal_rounded" not in outcome.flags
