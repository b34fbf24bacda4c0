"""An engine's answer is the reference's record, byte for byte; what does not conform plainly it leaves alone."""

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import orjson
import pytest

from bridge.event import ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles import drx_standard
from tests.engine_cases import (
    DAYS,
    DECIMALS,
    INSTANTS,
    INTEGERS,
    KEYS,
    RECEIVED_AT,
    TYPES,
    Head,
    check_engine,
    engines_beside,
    full_document,
)
from tests.unit.profile_documents import SAMPLES, SENT, a_delivery
from tests.unit.profile_documents import edited as with_edits

MANIFEST = json.loads((SAMPLES / "manifest.json").read_bytes())


def id_of(body: bytes) -> str:
    document = parse(body)
    found = None if isinstance(document, ParkReason) else document.get("id")
    return found if isinstance(found, str) else "evt_1"


@pytest.mark.parametrize("row", MANIFEST, ids=lambda row: row["file"])
def test_a_sample_is_answered_if_it_is_native_drx_without_leniency(row: dict[str, Any]) -> None:
    body = (SAMPLES / row["file"]).read_bytes()

    webhook_id, document = id_of(body), parse(body)
    mapped = (
        document if isinstance(document, ParkReason) else drx_standard.map(a_delivery(body, id=webhook_id), document)
    )
    conforms = not isinstance(mapped, ParkReason) and not mapped.flags and not mapped.extensions

    assert (check_engine(body, Head(webhook_id)) is not None) == conforms
    assert row["profile"] == "drx_standard" or not conforms


@pytest.mark.parametrize(
    ("pointer", "texts"),
    [
        ("/timestamp", [f'"{each}"' for each in INSTANTS]),
        ("/data/medication/quantity", [f'"{each}"' for each in DECIMALS]),
        ("/data/medication/written_date", [f'"{each}"' for each in DAYS]),
        ("/data/prescription_id", [f'"{each}"' for each in KEYS]),
        ("/data/attempt", INTEGERS),
        ("/data/attempt", ["1", "true", "1.0", '"1"']),
        ("/data/medication/substitution_allowed", ["true", "false", "1", '"true"']),
        ("/version", ['"1"', '"2"', "1"]),
        ("/environment", ['"sandbox"', '"production"']),
        ("/id", ['"evt_1"', "7", "null"]),
    ],
)
def test_a_value_at_an_edge_is_answered_as_the_reference_does_or_left_to_it(pointer: str, texts: Sequence[str]) -> None:
    bodies = [with_edits(SENT, {"/id": '"evt_1"'} | {pointer: text}) for text in texts]
    answers = [check_engine(body, Head("evt_1")) for body in bodies]

    assert answers[0] == "prescription.sent"


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
    assert check_engine(orjson.dumps(document), Head("evt_1")) == event_type

    for way in members(document):
        body = orjson.dumps(without(document, way))
        reference = drx_standard.map(a_delivery(body), a_document_of(body))
        answered = check_engine(body, Head("evt_1"))
        assert (answered is None) == isinstance(reference, ParkReason), way


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda body: body.replace(b'"id":', b'"version":"1","id":', 1), id="a name twice"),
        pytest.param(lambda body: body.replace(b'"attempt":1', b'"attempt":-0'), id="-0"),
        pytest.param(lambda body: body.replace(b'"attempt":1', b'"attempt":-0 '), id="-0 and space"),
        pytest.param(lambda body: body.replace(b'"attempt":1', b'"attempt":1.0'), id="a fraction"),
        pytest.param(lambda body: body.replace(b'"attempt":1', b'"attempt":2147483648'), id="more than 32 bits"),
        pytest.param(lambda body: body.replace(b'"data":{', b'"data":{"zzz":1,'), id="an unknown member"),
        pytest.param(lambda body: body.replace(b'"quantity":"30"', b'"quantity":"30.0001"'), id="more than the scale"),
        pytest.param(lambda body: body.replace(b'"quantity":"30"', b'"quantity":"1000000000"'), id="more digits"),
        pytest.param(lambda body: body.replace(b'"id":', b'"version" :"1","id":', 1), id="a name twice, hidden"),
        pytest.param(lambda body: body.replace(b'"version":"1"', b'"version":1'), id="another version"),
        pytest.param(lambda body: b"\xef\xbb\xbf" + body, id="byte order mark"),
        pytest.param(lambda body: body + b"{}", id="more behind"),
        pytest.param(lambda body: b"[" + body + b"]", id="an array"),
        pytest.param(lambda _: b"", id="nothing"),
        pytest.param(lambda _: b"[" * 100_000, id="depth"),
    ],
)
def test_what_does_not_conform_plainly_is_left_to_the_reference(body: Callable[[bytes], bytes]) -> None:
    sent = orjson.dumps(orjson.loads(with_edits(SENT, {"/data/attempt": "1", "/id": '"evt_1"'})))
    assert check_engine(sent, Head("evt_1")) == "prescription.sent"

    assert body(sent) != sent
    assert check_engine(body(sent), Head("evt_1")) is None


def test_an_id_that_begins_like_the_keys_of_another_source_is_left_to_the_reference() -> None:
    body = with_edits(SENT, {"/id": '"evt_1"', "/data/prescription_id": '"east:1"'})
    beside_it = engines_beside("east:")

    assert check_engine(body, Head("evt_1")) == "prescription.sent"
    assert beside_it("drx", "sandbox")(body, "evt_1", RECEIVED_AT) is None
    assert isinstance(drx_standard.refusing(("east:",)).map(a_delivery(body), a_document_of(body)), ParkReason)


def test_any_order_of_members_and_any_space_between_them_is_plain() -> None:
    document = orjson.loads(with_edits(SENT, {"/id": '"evt_1"'}))
    turned = dict(reversed(document.items())) | {"data": dict(reversed(document["data"].items()))}

    for body in (orjson.dumps(turned), b"\r\n " + json.dumps(turned, indent="\t").encode() + b"\n"):
        assert check_engine(body, Head("evt_1")) == "prescription.sent"
