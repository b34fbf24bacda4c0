"""How ours and others' elements meet, and what answers of a server mean."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from bridge.errors import PermanentError
from consumers.fhir.bundle import (
    Entry,
    composed,
    encoded,
    foreign,
    has_digits,
    owned_sha256,
    parsed,
    refusal,
    same,
    transaction,
    version_of,
    versions,
)
from consumers.fhir.elements import Naming
from consumers.fhir.mapping import Resource
from tests.fhir.told import NAMING

SOURCE = "urn:drx:source:drx"
OURS = {"system": "urn:drx:prescription", "value": "rx_1"}
THEIRS = {"system": "https://ehr.example/orders", "value": "77"}


def an_order(**elements: Any) -> Resource:
    return Resource("MedicationRequest", "drx-1", {"identifier": [OURS], "status": "active", **elements})


def outcome(*issues: dict[str, Any]) -> bytes:
    return orjson.dumps({"resourceType": "OperationOutcome", "issue": list(issues)})


def test_others_keep_what_is_theirs_and_lose_what_is_ours() -> None:
    current = {
        "resourceType": "MedicationRequest",
        "id": "drx-1",
        "meta": {"versionId": "3", "tag": [{"code": "seen"}], "source": "urn:else#1"},
        "identifier": [THEIRS, {"system": "urn:drx:prescription", "value": "old"}],
        "status": "completed",
        "statusReason": {"text": "theirs"},
        "note": [{"id": "drx", "text": "old"}, {"text": "theirs"}],
        "encounter": {"display": "visit"},
    }

    body = composed(an_order(), foreign(current, NAMING), source=SOURCE)

    assert body == {
        "resourceType": "MedicationRequest",
        "id": "drx-1",
        "encounter": {"display": "visit"},
        "identifier": [THEIRS, OURS],
        "status": "active",
        "note": [{"text": "theirs"}],
        "meta": {"tag": [{"code": "seen"}], "source": SOURCE},
    }
    assert foreign(body, NAMING) == foreign(current, NAMING)


def test_an_identifier_of_others_that_begins_as_ours_stays() -> None:
    """The base may be one that they use as well."""
    naming = Naming("https://ehr.example/", mrn="https://ehr.example/mrn", patient="https://ehr.example/patient")
    theirs = [{"system": f"https://ehr.example/{name}", "value": "1"} for name in ("order-number", "prescription/old")]
    ours = naming.identifier("prescription", "rx_1")
    current = {"resourceType": "MedicationRequest", "id": "drx-1", "identifier": [*theirs, *ours, {"value": "2"}]}

    assert foreign(current, naming) == {"identifier": [*theirs, {"value": "2"}]}


@pytest.mark.parametrize(
    "digits", ["1.50", "0.10", "1E3", "1.0", "-0.0", "12345678901234567890123", "0.12345678901234567890", "7"]
)
def test_numbers_of_others_are_written_with_the_digits_that_they_came_with(digits: str) -> None:
    """1.50 was measured more precisely than 1.5."""
    answer = b'{"resourceType": "MedicationRequest", "id": "drx-1", "extension": [{"valueDecimal": %s}]}'
    current = parsed(answer % digits.encode())
    body = composed(an_order(), foreign(current, NAMING), source=SOURCE)

    assert b'"extension":[{"valueDecimal":%s}]' % digits.encode() in transaction([Entry(an_order(), body)])
    assert has_digits(current) == (digits != "7")


def test_a_number_of_ours_that_a_server_answers_is_the_same() -> None:
    body = composed(an_order(dispenseRequest={"quantity": {"value": 0.1}}), {}, source=SOURCE)

    assert same(body, parsed(encoded(body)))


def test_only_what_a_server_keeps_for_itself_may_differ() -> None:
    body = composed(an_order(), {}, source=SOURCE)

    assert same(body, {**body, "meta": {"versionId": "9"}})
    assert not same(body, {**body, "priority": "urgent"})


def test_equal_elements_have_one_digest_whatever_their_order() -> None:
    one, other = an_order(intent="order"), Resource("MedicationRequest", "drx-1", {"intent": "order"})
    other.elements.update({"status": "active", "identifier": [OURS]})

    assert owned_sha256(one) == owned_sha256(other)
    assert owned_sha256(one) != owned_sha256(an_order(intent="proposal"))


def test_a_transaction_names_versions_where_there_are_some() -> None:
    entries = [Entry(an_order(), {}, "3"), Entry(an_order(), {})]

    assert [each["request"] for each in orjson.loads(transaction(entries))["entry"]] == [
        {"method": "PUT", "url": "MedicationRequest/drx-1", "ifMatch": 'W/"3"'},
        {"method": "PUT", "url": "MedicationRequest/drx-1"},
    ]


@pytest.mark.parametrize(
    ("etag", "expected"),
    [('W/"3"', "3"), ('"3"', "3"), ("3", "3"), ('W/"a-b.c"', "a-b.c"), ("", ""), (None, ""), ('W/"', ""), ("x y", "")],
)
def test_a_version_is_read_in_whatever_form(etag: str | None, expected: str) -> None:
    assert version_of(etag) == expected


def test_each_entry_of_an_answer_has_a_version() -> None:
    responses = [{"etag": "1"}, {"location": "Task/drx-1/_history/7"}, {}]
    answer = {"resourceType": "Bundle", "entry": [{"response": each} for each in responses]}

    assert versions(orjson.dumps(answer), 3) == ["1", "7", ""]


@pytest.mark.parametrize(
    "answer",
    [b"", b"<html>", b"[]", b'{"a": 1}', b'{"resourceType": "\\ud800"}', b'{"resourceType": "Bundle", "entry": []}'],
)
def test_an_answer_that_is_none_is_said_so(answer: bytes) -> None:
    with pytest.raises(PermanentError) as caught:
        versions(answer, 1)

    assert caught.value.code == "answer_unreadable"


def test_what_is_cut_off_is_not_read() -> None:
    with pytest.raises(PermanentError):
        parsed(b'{"resourceType": "MedicationRequest", "id": "drx')


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (outcome({"severity": "error", "code": "business-rule", "diagnostics": "hunter2"}), "fhir_business_rule"),
        (
            outcome({"severity": "warning", "code": "value"}, {"severity": "fatal", "code": "invariant"}),
            "fhir_invariant",
        ),
        (outcome({"severity": "error", "code": "hunter2"}), "fhir_invalid"),
        (outcome({"severity": "error", "code": "multiple-matches"}), "multiple_matches"),
        (
            outcome(
                {
                    "severity": "error",
                    "code": "processing",
                    "diagnostics": 'match URL "Patient?identifier=x" matched 2 resources',
                }
            ).replace(b'\\"', b"'"),
            "multiple_matches",
        ),
        (outcome(), "fhir_invalid"),
        (b'{"resourceType": "OperationOutcome", "issue": ["hunter2", 7]}', "fhir_invalid"),
        (b"hunter2", "fhir_invalid"),
    ],
)
def test_a_refusal_is_a_constant(answer: bytes, code: str) -> None:
    assert refusal(answer) == code
