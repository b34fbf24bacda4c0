"""The settings of fhir, and missing capabilities by a server's metadata."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError, PermanentError
from bridge.event import Event
from consumers.api import Lanes, Setup
from consumers.fhir.capability import lacking
from consumers.fhir.consumer import open_fhir
from consumers.fhir.options import NAME, FhirOptions
from consumers.options import read_options
from consumers.testing import a_context, an_event
from tests.fhir.fake import STATEMENT

LEAST = {"base_url": "https://ehr.example/fhir"}


def setup(**options: str) -> Setup:
    return Setup({**LEAST, **options}, CollectorRegistry())


def test_it_says_of_its_tables_too_that_they_hold_health_information() -> None:
    server, tables = open_fhir(setup(instance="north")).discloses or ()

    assert server.endswith(": written to https://ehr.example")
    assert "in clear: tables of the schema fhir_north " in tables


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "urn:drx:mrn:acct%201"),
        ({"identifier_base": "https://ehr.example/drx/"}, "https://ehr.example/drx/mrn/acct%201"),
        ({"mrn_system": "https://ehr.example/{account}/mrn"}, "https://ehr.example/acct%201/mrn"),
        ({"mrn_system": "urn:oid:1.2"}, "urn:oid:1.2"),
    ],
)
def test_a_medical_record_number_is_one_of_its_account(given: dict[str, str], expected: str) -> None:
    assert read_options(FhirOptions, NAME, {**LEAST, **given}).naming("acct 1").mrn == expected


async def test_plain_http_and_a_token_that_cannot_be_read_are_refused_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two hunter2")
    for options, words in (
        ({"base_url": "http://ehr.example"}, None),
        ({"token_file": str(file)}, r"fhir\.token_file"),
    ):
        consumer = open_fhir(setup(**options))
        assert consumer.around is not None
        with pytest.raises(ConfigError, match=words) as caught:
            async with consumer.around():
                pass
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("event", "origin"),
    [
        (an_event("prescription.created", account_id="acct_2"), ""),
        (an_event("prescription.created"), "import"),
        *((an_event(each), "") for each in ("system.ping", "other.reported", "prescriber.enrollment_changed")),
    ],
)
async def test_an_event_of_no_interest_is_not_looked_at(event: Event, origin: str) -> None:
    consumer = open_fhir(setup(accounts="acct_1", imports="skip"))
    handle: Any = consumer.handle
    await handle(event, replace(a_context(), origin=origin))
    handle = open_fhir(setup(accounts="acct_1")).handle
    with pytest.raises(PermanentError, match="bad_key"):
        await handle(an_event("prescription.created", key="rx\0"), replace(a_context(), origin="import"))

    assert (consumer.mode, consumer.handler_timeout_s) == (Lanes(8, transactional=True), 80)


def lacks(*, chooses_ids: bool = False, transactions: bool = True, **changes: Any) -> list[str]:
    """Of a server whose MedicationRequest is another."""
    statement = deepcopy(STATEMENT)
    statement["rest"][0]["resource"][0] |= changes
    return lacking(statement, chooses_ids=chooses_ids, transactions=transactions, searches=False)


@pytest.mark.parametrize(
    ("changes", "chooses_ids", "expected"),
    [
        ({}, False, []),
        ({"updateCreate": False}, False, ["ids that the client chooses: set IDS=server"]),
        ({"updateCreate": False}, True, []),
        ({"conditionalCreate": False}, False, []),
        ({"conditionalCreate": False}, True, ["If-None-Exist"]),
        ({"searchParam": []}, True, ["search by identifier"]),
        ({"versioning": "versioned"}, False, ["If-Match"]),
        ({"versioning": "versioned-update"}, False, []),
        ({"interaction": [{"code": "read"}]}, False, ["update"]),
        ({"interaction": [{"code": "read"}, {"code": "update"}]}, True, ["create"]),
    ],
)
def test_what_a_type_lacks_is_named(
    changes: dict[str, Any],
    chooses_ids: bool,  # noqa: FBT001 - a parameter
    expected: list[str],
) -> None:
    assert lacks(chooses_ids=chooses_ids, **changes) == [f"MedicationRequest: {each}" for each in expected]


def test_what_a_server_says_nothing_of_is_lacking() -> None:
    found = lacking({}, chooses_ids=False, transactions=True, searches=True)

    assert {"FHIR R4", "transaction: set BUNDLE=false", "Flag: read", "Patient: search by identifier"} <= set(found)
    assert "transaction: set BUNDLE=false" not in lacks(transactions=False)
    r4b = lacking({"fhirVersion": "4.3.0"}, chooses_ids=True, transactions=True, searches=False)
    assert ("FHIR R4" in r4b, "Patient: search by identifier" in r4b) == (True, False)
