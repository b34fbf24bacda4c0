"""What a FHIR server lacks, by what it says of itself."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest

from consumers.fhir.capability import lacking
from tests.fhir.fake import STATEMENT


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
    found = lacks(chooses_ids=chooses_ids, **changes)

    assert found == [f"MedicationRequest: {each}" for each in expected]


def test_what_a_server_says_nothing_of_is_lacking() -> None:
    found = lacking({}, chooses_ids=False, transactions=True, searches=True)

    assert {"FHIR R4", "transaction: set BUNDLE=false", "Flag: read", "Patient: search by identifier"} <= set(found)
    assert "transaction: set BUNDLE=false" not in lacks(transactions=False)
