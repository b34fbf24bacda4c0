"""Merging of owned and foreign elements, and the meaning of a server's responses."""

from typing import Any

import orjson
import pytest

from bridge.errors import PermanentError, TransientError
from consumers.fhir import bundle
from consumers.fhir.elements import OUR_ITEM, Naming
from consumers.fhir.mapping import Resource
from consumers.fhir.sink import _Conflict, _judge
from tests.fhir.told import NAMING

BASE = "https://ehr.example/fhir"
SOURCE = "urn:drx:source:drx"
OURS = {"system": "urn:drx:prescription", "value": "rx_1"}
WARNING = {"severity": "warning", "code": "value"}
SEVERAL = {"severity": "error", "code": "processing", "diagnostics": "match URL 'Patient?a=x' matched 2 resources"}


def an_order(**elements: Any) -> Resource:
    return Resource("MedicationRequest", "drx-1", {"identifier": [OURS], "status": "active", **elements})


def outcome(*issues: dict[str, Any]) -> bytes:
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": list(issues)})


def test_an_identifier_of_others_that_begins_as_ours_stays() -> None:
    """The base may be one that they use as well."""
    naming = Naming("https://ehr.example/", mrn="https://ehr.example/mrn", patient="https://ehr.example/patient")
    theirs = [{"system": f"https://ehr.example/{name}", "value": "1"} for name in ("order-number", "prescription/old")]
    ours = naming.identifier("prescription", "rx_1")
    current = {"resourceType": "MedicationRequest", "id": "drx-1", "identifier": [*theirs, *ours, {"value": "2"}]}
    notes = [{"id": f"{OUR_ITEM}-1", "text": "ours"}, {"id": "1", "text": "theirs"}]

    lists = {"note": notes, "output": notes}
    kept = dict.fromkeys(lists, notes[1:])
    assert bundle.foreign(current | lists, naming) == {"identifier": [*theirs, {"value": "2"}], **kept}
    for name in ("medicationReference", "statusReasonReference"):
        assert bundle.foreign({"resourceType": "MedicationDispense", name: {"reference": "theirs"}}, naming) == {}


def test_a_partial_update_changes_its_elements_and_keeps_what_others_may_write() -> None:
    meta = {"tag": [{"code": "x"}], "security": [{"code": "R"}], "source": SOURCE}
    current = {"id": "drx-1", "intent": "order", "status": "draft", "meta": {**meta, "versionId": "3"}}

    assert bundle.patched(an_order(), current) == {**current, "identifier": [OURS], "status": "active", "meta": meta}
    assert "id" not in bundle.composed(an_order()._replace(id=""), {}, source=SOURCE)


def test_a_reference_to_another_patient_is_another_person() -> None:
    order = an_order(subject={"reference": "Patient/1"})

    assert not bundle.another_person(order, {"subject": {"reference": "Patient/1", "display": "Quintero"}})
    assert bundle.another_person(order, {"subject": {"reference": "Patient/2"}})
    assert not bundle.another_person(order, {"subject": {"identifier": {"system": "urn:mrn", "value": "1"}}})
    identified = an_order(subject={"identifier": {"system": "urn:mrn", "value": "1"}})
    subjects = [
        {"identifier": {"system": f"urn:{of}", "value": no}} for of, no in (("mrn", "1"), ("mrn", "2"), ("", "2"))
    ]
    assert [bundle.another_person(identified, {"subject": each}) for each in subjects] == [False, True, False]


@pytest.mark.parametrize(
    "digits", ["1.50", "0.10", "1E3", "1.0", "-0.0", "12345678901234567890123", "0.12345678901234567890", "7"]
)
def test_numbers_of_others_are_written_with_the_digits_that_they_came_with(digits: str) -> None:
    """1.50 was measured more precisely than 1.5."""
    answer = b'{"resourceType": "MedicationRequest", "id": "drx-1", "extension": [{"valueDecimal": %s}]}'
    current = bundle.parsed(answer % digits.encode())
    body = bundle.composed(an_order(), bundle.foreign(current, NAMING), source=SOURCE)

    text = bundle.transaction([bundle.BundleEntry(an_order(), body)], BASE)

    assert text.startswith(b'{"resourceType":"Bundle","type":"transaction"')
    assert b'"extension":[{"valueDecimal":%s}]' % digits.encode() in text


@pytest.mark.parametrize(
    ("etag", "expected"),
    [('W/"3"', "3"), ('"3"', "3"), ("3", "3"), ('W/"a-b.c"', "a-b.c"), ("", ""), (None, ""), ('W/"', ""), ("x y", "")],
)
def test_a_version_is_read_in_whatever_form(etag: str | None, expected: str) -> None:
    assert bundle.version_of(etag) == expected
    assert bundle.replaces(expected) == ({"ifMatch": f'W/"{expected}"'} if expected else {})


def test_each_entry_of_an_answer_has_a_status_and_a_place() -> None:
    refused = {"resourceType": "OperationOutcome"}
    responses = [
        {"status": "201 Created", "location": "Task/drx-1/_history/7"},
        {"status": "200"},
        {"status": "422 No", "outcome": refused},
        {"status": "\u0662\u0660\u0660"},
        {},
    ]
    entries = [{"response": each} for each in responses]
    found = bundle.outcomes(orjson.dumps({"resourceType": "Bundle", "entry": entries}), 5)

    assert [(each.status, each.id) for each in found] == [(201, "drx-1"), (200, ""), (422, ""), (0, ""), (0, "")]
    assert orjson.loads(found[2].body) == refused


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        (f"{BASE}/Task/7/_history/2", ("7", "2")),
        ("Task/7", ("7", "")),
        ("", ("", "")),
        (None, ("", "")),
        ("Task/a b", ("", "")),
    ],
)
def test_a_location_says_where_a_resource_is_and_which_version(location: str | None, expected: tuple[str, str]) -> None:
    assert (bundle.id_in(location), bundle.version_in(location)) == expected


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b'{"a": 1}', b'{"resourceType": "\\ud800"}', b'{"resourceType": "Bundle", "entry": []}'],
)
def test_an_answer_that_is_none_is_said_so(answer: bytes) -> None:
    with pytest.raises(PermanentError, match=r"^answer_unreadable$"):
        bundle.outcomes(answer, 1)


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (outcome({"severity": "error", "code": "business-rule", "diagnostics": "hunter2"}), "fhir_business_rule"),
        (outcome(WARNING, {"severity": "fatal", "code": "invariant"}), "fhir_invariant"),
        (outcome({"severity": "error", "code": "hunter2"}), "fhir_invalid"),
        (outcome({"severity": "error", "code": "multiple-matches"}), "multiple_matches"),
        (outcome(SEVERAL), "multiple_matches"),
        (outcome(), "fhir_invalid"),
        (b'{"resourceType": "OperationOutcome", "issue": ["hunter2", 7]}', "fhir_invalid"),
        (b"hunter2", "fhir_invalid"),
    ],
)
def test_a_refusal_is_a_constant(answer: bytes, code: str) -> None:
    assert bundle.refusal(answer) == code


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (412, "multiple-matches", PermanentError),
        (412, "processing", _Conflict),
        (409, "conflict", _Conflict),
        (0, "", _Conflict),
        (400, "invalid", PermanentError),
        (422, "business-rule", PermanentError),
        (401, "login", TransientError),
        (503, "exception", TransientError),
    ],
)
def test_the_status_of_a_write_decides_who_is_at_fault(status: int, code: str, raised: type[Exception]) -> None:
    with pytest.raises(raised):
        _judge(status, outcome({"severity": "error", "code": code}))
