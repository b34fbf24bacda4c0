"""The fast path returns the reference's record, byte for byte, and defers other deliveries."""

import copy
import json
from collections.abc import Iterator, Sequence
from typing import Any, cast

import orjson
import pytest

from bridge.event import ParkReason
from bridge.mapping import drx_standard
from bridge.mapping.json_body import parse
from tests.fast_path_cases import (
    DAYS,
    DECIMALS,
    FAST_PATHS,
    INSTANTS,
    KEYS,
    RECEIVED_AT,
    TYPES,
    Head,
    a_text,
    check_fast_path,
    full_document,
)
from tests.unit.profile_documents import SAMPLES, SENT, a_delivery, map_body
from tests.unit.profile_documents import edited as with_edits

MANIFEST = json.loads((SAMPLES / "manifest.json").read_bytes())


@pytest.mark.parametrize("row", MANIFEST, ids=lambda row: row["file"])
def test_a_sample_is_answered_if_it_is_native_drx_without_leniency(row: dict[str, Any]) -> None:
    text = a_text((SAMPLES / row["file"]).read_bytes())

    mapped = map_body(text.body, id=text.webhook_id)

    conforms = not isinstance(mapped, ParkReason) and not mapped.flags and not mapped.extensions
    assert (check_fast_path(text.body, Head(text.webhook_id)) is not None) == conforms
    assert row["profile"] == "drx_standard" or not conforms


@pytest.mark.parametrize(
    ("pointer", "texts"),
    [
        ("/timestamp", INSTANTS),
        ("/data/medication/quantity", DECIMALS),
        ("/data/medication/written_date", DAYS),
        ("/data/prescription_id", KEYS),
        ("/data/attempt", ("0", "255", "256", "-1", "2147483647", "2147483648", "-2147483648", "-2147483649")),
    ],
)
def test_a_value_at_an_edge_is_answered_as_the_reference_does_or_left_to_it(pointer: str, texts: Sequence[str]) -> None:
    as_json = [text if pointer == "/data/attempt" else json.dumps(text) for text in texts]
    bodies = [with_edits(SENT, {"/id": '"evt_1"', pointer: text}) for text in as_json]

    answers = [check_fast_path(body, Head("evt_1")) for body in bodies]

    assert answers[0] == "prescription.sent"


def test_a_fill_id_is_answered_up_to_its_length() -> None:
    fill = "native/24_fill_dispensed.json"
    bodies = [with_edits(fill, {"/id": '"evt_1"', "/data/fill_id": json.dumps("é" * length)}) for length in (0, 64, 65)]

    assert [check_fast_path(body, Head("evt_1")) for body in bodies] == ["fill.status_changed"] * 2 + [None]


def a_document_of(body: bytes) -> dict[str, object]:
    return cast("dict[str, object]", parse(body))


def members(document: dict[str, Any], way: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in document.items():
        yield (*way, name)
        if isinstance(value, dict):
            yield from members(value, (*way, name))


def without(document: dict[str, Any], way: tuple[str, ...]) -> dict[str, Any]:
    changed: Any = copy.deepcopy(document)
    holder = changed
    for name in way[:-1]:
        holder = holder[name]
    del holder[way[-1]]
    return cast("dict[str, Any]", changed)


@pytest.mark.parametrize("event_type", TYPES)
def test_a_type_is_answered_with_all_of_its_members_and_without_each_that_may_be_absent(event_type: str) -> None:
    document = full_document(event_type)
    assert check_fast_path(orjson.dumps(document), Head("evt_1")) == event_type

    for way in members(document):
        body = orjson.dumps(without(document, way))
        reference = drx_standard.map(a_delivery(body), a_document_of(body))
        answered = check_fast_path(body, Head("evt_1"))
        assert (answered is None) == isinstance(reference, ParkReason), way


def test_an_id_that_begins_like_the_keys_of_another_source_is_left_to_the_reference() -> None:
    body = with_edits(SENT, {"/id": '"evt_1"', "/data/prescription_id": '"east:1"'})
    beside_it = FAST_PATHS.of(drx_standard.refusing(("east:",)), source="drx", environment="sandbox")

    assert check_fast_path(body, Head("evt_1")) == "prescription.sent"
    assert beside_it is not None
    assert beside_it(body, "evt_1", RECEIVED_AT) is None
    assert isinstance(drx_standard.refusing(("east:",)).map(a_delivery(body), a_document_of(body)), ParkReason)
