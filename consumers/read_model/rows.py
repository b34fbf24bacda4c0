"""A document as a row of `prescription`, and the statements that write rows by the hundred."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from consumers.read_model.facts import Document
from consumers.read_model.roll_up import State, roll_up

# Columns and the types they are sent as; what is sent as text and is none is cast by the server.
_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("prescription_id", "text", ""),
    ("source", "text", ""),
    ("environment", "text", ""),
    ("account_id", "text", ""),
    ("transmission", "text", ""),
    ("order_status", "text", ""),
    ("dispense", "text", ""),
    ("fulfillment", "text", ""),
    ("shipment", "text", ""),
    ("display", "text", ""),
    ("open_requests", "text", "text[]"),
    ("safety", "text", "text[]"),
    ("anomalies", "int", ""),
    ("stub", "boolean", ""),
    ("replaced_by", "text", ""),
    ("prescriber_order_number", "text", ""),
    ("rx_reference_number", "text", ""),
    ("patient_id", "text", ""),
    ("patient_mrn", "text", ""),
    ("patient_name", "text", ""),
    ("patient_birth_date", "text", "date"),
    ("prescriber_id", "text", ""),
    ("prescriber_npi", "text", ""),
    ("prescriber_name", "text", ""),
    ("pharmacy_ncpdp_id", "text", ""),
    ("pharmacy_name", "text", ""),
    ("medication", "text", ""),
    ("medication_ndc", "text", ""),
    ("dea_schedule", "text", ""),
    ("transmission_at", "text", "timestamptz"),
    ("cancel_pending_since", "text", "timestamptz"),
    ("open_since", "text", "timestamptz"),
    ("cancelled_at", "text", "timestamptz"),
    ("dispensed_at", "text", "timestamptz"),
    ("first_event_at", "text", "timestamptz"),
    ("last_event_at", "text", "timestamptz"),
    ("last_event_type", "text", ""),
    ("events", "bigint", ""),
    ("facts", "text", "jsonb"),
)
_NOBODY: Document = {}
_UNSAID = [None, _NOBODY]
_UNSAID_TEXT = [None, None]


class Statements(NamedTuple):
    """The statements of one schema.

    Attributes:
        history: Arrays of the columns of `event`; returns the prescription ids of the rows that are new.
        load: Prescription ids; returns what is known of them.
        insert: Arrays of the columns of `prescription`; leaves a row that has appeared alone.
        update: The same and the number of events before; leaves a row that has changed alone.
    """

    history: str
    load: str
    insert: str
    update: str


def statements(schema: str) -> Statements:
    """Write the statements for a schema whose name is checked."""
    names = ", ".join(name for name, _, _ in _COLUMNS)
    arrays = ", ".join(f"${place}::{sent}[]" for place, (_, sent, _) in enumerate(_COLUMNS, 1))
    values = ", ".join(f"u.{name}::{cast}" if cast else f"u.{name}" for name, _, cast in _COLUMNS)
    settings = ", ".join(f"{name} = u.{name}" + (f"::{cast}" if cast else "") for name, _, cast in _COLUMNS[1:])
    return Statements(
        history=f"""
            insert into "{schema}".event (source, event_id, prescription_id, event_type, occurred_at, received_at,
              topic, partition, "offset", body)
            select source, event_id, prescription_id, event_type, occurred_at, received_at, topic, part, place,
              body::jsonb
            from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[],
              $7::text[], $8::int[], $9::bigint[], $10::text[]) as u
              (source, event_id, prescription_id, event_type, occurred_at, received_at, topic, part, place, body)
            on conflict (source, event_id) do nothing
            returning prescription_id
            """,  # noqa: S608 -- as below
        load=f"""
            select prescription_id, events, facts::text from "{schema}".prescription
            where prescription_id = any ($1::text[])
            """,  # noqa: S608 -- as below
        insert=f"""
            insert into "{schema}".prescription ({names}) select {values} from unnest({arrays}) as u ({names})
            on conflict (prescription_id) do nothing
            """,  # noqa: S608 -- as below
        update=f"""
            update "{schema}".prescription p set {settings}, updated_at = clock_timestamp()
            from unnest({arrays}, ${len(_COLUMNS) + 1}::bigint[]) as u ({names}, events_before)
            where p.prescription_id = u.prescription_id and p.events = u.events_before
            """,  # noqa: S608 -- the schema's name is checked where it is read, the columns are ours
    )


def row(prescription_id: str, document: Document, *, events: int) -> tuple[Any, ...]:
    """Return the values of a row, in the order of the statements."""
    state: State = roll_up(document)
    last_stamp, last_type, account_id, environment = document["last"]
    patient = document.get("patient", _UNSAID)[1]
    prescriber = document.get("prescriber", _UNSAID)[1]
    pharmacy = document.get("pharmacy", _UNSAID)[1]
    medication = document.get("medication", _UNSAID)[1]
    return (
        prescription_id,
        last_stamp[3],
        environment,
        account_id,
        state.transmission,
        state.order_status,
        state.dispense,
        state.fulfillment,
        state.shipment,
        state.display,
        array_literal(state.open_requests),
        array_literal(state.safety),
        state.anomalies,
        state.stub,
        state.replaced_by,
        document.get("prescriber_order_number", _UNSAID_TEXT)[1],
        document.get("rx_reference_number", _UNSAID_TEXT)[1],
        patient.get("id"),
        patient.get("mrn"),
        patient.get("name"),
        patient.get("birth_date"),
        prescriber.get("id"),
        prescriber.get("npi"),
        prescriber.get("name"),
        pharmacy.get("ncpdp_id"),
        pharmacy.get("name"),
        medication.get("description"),
        medication.get("ndc"),
        medication.get("dea_schedule"),
        state.transmission_at,
        state.cancel_pending_since,
        state.open_since,
        state.cancelled_at,
        state.dispensed_at,
        document["first"][0],
        last_stamp[0],
        last_type,
        events,
        orjson.dumps(document, option=orjson.OPT_SORT_KEYS).decode(),
    )


def array_literal(words: list[str]) -> str:
    """Write a PostgreSQL array: one text per row, since arrays of arrays would have to be of one length."""
    if not words:
        return "{}"
    quoted = (word.replace("\\", "\\\\").replace('"', '\\"') for word in words)
    return '{"' + '","'.join(quoted) + '"}'
