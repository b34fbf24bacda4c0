"""Convert documents to rows of `prescription`, and statements that write many rows at a time."""

from typing import Any, NamedTuple

import orjson

from consumers.lifecycle.facts import Document
from consumers.lifecycle.roll_up import roll_up

# Columns in the order of the type `prescription_row`, and casts of columns sent as strings.
COLUMNS = (
    "prescription_id", "source", "environment", "account_id", "transmission", "order_status", "dispense", "fulfillment",
    "shipment", "display", "open_requests", "safety", "anomalies", "stub", "replaced_by", "prescriber_order_number",
    "rx_reference_number", "patient_id", "patient_mrn", "patient_name", "patient_birth_date", "prescriber_id",
    "prescriber_npi", "prescriber_name", "pharmacy_ncpdp_id", "pharmacy_name", "medication", "medication_ndc",
    "dea_schedule", "transmission_at", "cancel_pending_since", "open_since", "cancelled_at", "dispensed_at",
    "first_event_at", "last_event_at", "last_event_type", "events", "facts",
)  # fmt: skip
_INSTANTS = (
    "transmission_at", "cancel_pending_since", "open_since", "cancelled_at", "dispensed_at", "first_event_at",
    "last_event_at",
)  # fmt: skip
_CASTS = {"patient_birth_date": "date", "facts": "jsonb", **dict.fromkeys(_INSTANTS, "timestamptz")}
_NOBODY: Document = {}
_UNSAID = [None, _NOBODY]
_UNSAID_TEXT = [None, None]


class RowStatements(NamedTuple):
    """The statements of one schema; each takes an array of rows, which is faster than an array per column."""

    history: str  # rows of `event`; returns the prescription ids of new ones
    load: str  # prescription ids; returns their rows
    insert: str  # rows of `prescription`; skips rows that exist by now
    update: str  # the same; skips rows that have changed meanwhile


def statements(schema: str) -> RowStatements:
    """Return the statements for `schema`, a validated name."""
    names = ", ".join(COLUMNS)
    values = {name: f"u.{name}" + (f"::{_CASTS[name]}" if name in _CASTS else "") for name in COLUMNS}
    settings = ", ".join(f"{name} = {value}" for name, value in values.items() if name != "prescription_id")
    return RowStatements(
        history=f"""
            insert into "{schema}".event (source, event_id, prescription_id, event_type, occurred_at, received_at,
              topic, partition, "offset", body)
            select source, event_id, prescription_id, event_type, occurred_at, received_at,
              topic, partition, "offset", body::jsonb
            from unnest($1::"{schema}".event_row[])
            on conflict (source, event_id) do nothing
            returning prescription_id
            """,  # noqa: S608 -- as below
        load=f"""
            select prescription_id, events, facts::text from "{schema}".prescription
            where prescription_id = any ($1::text[])
            """,  # noqa: S608 -- as below
        insert=f"""
            insert into "{schema}".prescription ({names})
            select {", ".join(values.values())} from unnest($1::"{schema}".prescription_row[]) u
            on conflict (prescription_id) do nothing
            """,  # noqa: S608 -- as below
        update=f"""
            update "{schema}".prescription p set {settings}, updated_at = clock_timestamp()
            from unnest($1::"{schema}".prescription_row[]) u
            where p.prescription_id = u.prescription_id and p.events = u.events_before
            """,  # noqa: S608 -- the schema name is validated when read, the columns are ours
    )


def row(prescription_id: str, document: Document, *, before: int | None, added: int) -> tuple[Any, ...]:
    """Return a `prescription_row`: `COLUMNS`, and the number of events `before`, None if there was no row."""
    state = roll_up(document)
    last_stamp, last_type, account_id, environment = document["last"]
    patient = document.get("patient", _UNSAID)[1]
    prescriber = document.get("prescriber", _UNSAID)[1]
    pharmacy = document.get("pharmacy", _UNSAID)[1]
    medication = document.get("medication", _UNSAID)[1]
    return (
        prescription_id, last_stamp[3], environment, account_id, state.transmission, state.order_status,
        state.dispense, state.fulfillment, state.shipment, state.display, state.open_requests, state.safety,
        state.anomalies, state.stub, state.replaced_by,
        document.get("prescriber_order_number", _UNSAID_TEXT)[1], document.get("rx_reference_number", _UNSAID_TEXT)[1],
        patient.get("id"), patient.get("mrn"), patient.get("name"), patient.get("birth_date"),
        prescriber.get("id"), prescriber.get("npi"), prescriber.get("name"),
        pharmacy.get("ncpdp_id"), pharmacy.get("name"),
        medication.get("description"), medication.get("ndc"), medication.get("dea_schedule"),
        state.transmission_at, state.cancel_pending_since, state.open_since, state.cancelled_at, state.dispensed_at,
        document["first"][0], last_stamp[0], last_type, (before or 0) + added, orjson.dumps(document).decode(), before,
    )  # fmt: skip
