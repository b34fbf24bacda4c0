"""The models validate their fields, and show no patient data."""

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from bridge.contract.common import Address, Medication, Patient
from bridge.contract.events import EVENT_MODELS, NAMES_MAX, plain_pointer
from bridge.contract.fields import ContractRecord
from tests.unit.profile_documents import FILL, SENT, event_of


def phi_of(model: type[ContractRecord], name: str) -> str | None:
    extra = model.model_fields[name].json_schema_extra
    return str(extra["phi"]) if isinstance(extra, dict) else None


@pytest.mark.parametrize(("model", "phi"), [(Patient, "D"), (Address, "D"), (Medication, "L")])
def test_every_field_of_a_record_about_a_person_has_its_class(model: type[ContractRecord], phi: str) -> None:
    assert {phi_of(model, name) for name in model.model_fields} == {phi}


def test_a_model_is_closed_immutable_and_strict() -> None:
    model, value = EVENT_MODELS["fill.status_changed"], dict(event_of(FILL).value)
    record: Any = model.model_validate(value)

    with pytest.raises(ValidationError, match="frozen"):
        record.fill_number = 2
    wrongs: tuple[dict[str, Any], ...] = (
        {"new": "x"},
        *({"fill_number": number} for number in ("1", True, 2**31, -(2**31) - 1)),
        {"sequence": 2**63},
        {"fill_status": "evaporated"},
        {"quantity_dispensed": "30"},
        *({"quantity_dispensed": Decimal(text)} for text in ("1234567890", "0.0001", "1E+9", "NaN", "Infinity")),
        {"fill_date": "2026-09-15"},
        {"occurred_at": value["fill_date"]},
        {"account_id": 7},
        {"fill_id": "x" * 65},
    )
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            model.model_validate(value | wrong)


def test_neither_a_record_nor_its_errors_show_a_person() -> None:
    value = dict(event_of(SENT).value)
    record: Any = EVENT_MODELS["prescription.sent"].model_validate(value)
    with pytest.raises(ValidationError) as caught:
        EVENT_MODELS["prescription.sent"].model_validate(value | {"patient": {"first_name": "Marisol", "last_name": 7}})

    shown = f"{record!r} {record} {record.patient!r} {record.medication} {caught.value}"
    assert repr(record) == f"{type(record).__name__}(event_id={record.event_id!r}, event_type='prescription.sent')"
    for secret in ("Marisol", "Quintero", "lisinopril", "rx_5KX0A1", "1979"):
        assert secret not in shown


def test_a_pointer_of_more_names_than_the_contract_has_is_other() -> None:
    assert [plain_pointer("/ab" * count) for count in (NAMES_MAX, NAMES_MAX + 1)] == ["/ab" * NAMES_MAX, "other"]
