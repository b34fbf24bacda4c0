import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest

from bridge.contract.common import Medication
from bridge.errors import TransientError
from consumers.postgres.migrate import read_migrations
from consumers.postgres.text import stored_text
from consumers.read_model.consumer import MIGRATIONS
from tests.builders import SAMPLES
from tests.prescriptions import (
    SCENARIOS,
    START,
    a_fact,
    cancel_answered,
    cancel_asked,
    created,
    failed,
    filled,
    native,
    processed,
    renewal_asked,
    scenario,
    sent,
    worked_on,
)
from tests.read_model import Interleaved, ReadModel, open_model

# Everything but the time of processing.
ROWS = "select to_jsonb(p) - 'updated_at' as row from {schema}.prescription p order by prescription_id"
HISTORY = "select to_jsonb(e) - 'offset' as row from {schema}.event e order by source, event_id"


async def test_batches_single_records_and_any_order_end_in_the_same_rows(postgres: str) -> None:
    """The pure merging is proved elsewhere; this is the way through jsonb and the two statements."""
    events = [event for name in SCENARIOS for event in scenario(name)[0]]
    events = list({(event.source, event.id, event.key): event for event in events}.values())
    shuffled = list(events)
    Random(7).shuffle(shuffled)  # noqa: S311 -- a fixed order that is none
    found = []
    for schema, batches in (
        ("whole", [events]),
        ("single", [[event] for event in reversed(events)]),
        ("shuffled", [shuffled[:9], shuffled[9:10], shuffled[10:]]),
    ):
        async with open_model(postgres, schema=schema) as model:
            for batch in batches:
                await model.apply(*batch)
            found.append((await model.rows(ROWS), await model.rows(HISTORY)))

    assert found[0] == found[1] == found[2]
    assert len(found[0][0]) == len({event.key for event in events})


async def test_the_row_says_who_and_what_from_the_newest_event_that_does(model: ReadModel) -> None:
    full = native((SAMPLES / "native" / "03_prescription_sent.json").read_bytes())

    await model.apply(filled(60 * 24, "dispensed", key=full.key), full)

    row = await model.prescription(full.key)
    assert {
        name: row[name] for name in row if name.startswith(("patient", "prescriber", "pharmacy", "medication"))
    } == {
        "patient_id": "pat_9001",
        "patient_mrn": "MRN-0009001",
        "patient_name": "Marisol Quintero",
        "patient_birth_date": date(1979, 2, 28),
        "prescriber_order_number": "PON-5KX0A1",
        "prescriber_id": "prv_310",
        "prescriber_npi": "1999999901",
        "prescriber_name": "Adaeze Okafor",
        "pharmacy_ncpdp_id": "9999012",
        "pharmacy_name": "Maple Street Pharmacy #012",
        "medication": "lisinopril 10 mg oral tablet",
        "medication_ndc": "00591040701",
    }
    assert (row["account_id"], row["environment"], row["source"], row["events"]) == ("acct_4021", "sandbox", "drx", 2)
    assert row["last_event_type"] == "fill.status_changed"


async def test_the_history_holds_the_whole_record(model: ReadModel) -> None:
    event = filled(
        1,
        "dispensed",
        quantity_dispensed=Decimal("30.000"),
        fill_date=date(2026, 9, 14),
        occurred_at=datetime(2026, 9, 14, 15, 1, 0, 250, UTC),
    )

    await model.apply(event)

    (row,) = await model.rows("select * from {schema}.event")
    body = json.loads(row.pop("body"))
    assert row == {
        "source": "drx",
        "event_id": event.id,
        "prescription_id": "rx_1",
        "event_type": "fill.status_changed",
        "occurred_at": START + timedelta(minutes=1),
        "received_at": START + timedelta(minutes=1),
        "topic": "drx.prescriptions.v1",
        "partition": 0,
        "offset": 0,
    }
    assert sorted(body) == sorted(event.value)
    assert (body["quantity_dispensed"], body["fill_date"], body["occurred_at"], body["received_at"]) == (
        "30.000",
        "2026-09-14",
        "2026-09-14T15:01:00.000250Z",
        "2026-09-14T15:01:00Z",
    )


async def test_u_0000_is_stored_as_u_fffd_and_counted(model: ReadModel) -> None:
    """Legal in JSON and Avro, refused by PostgreSQL: nothing is parked for it."""
    await model.apply(
        renewal_asked(0, request_id="r\x001", extensions={"/a\x00": '"x"', "/a\ufffd": '"y"'}),
        a_fact("alert.raised", 1, message="literally \\u0000"),
    )

    row = await model.prescription()
    bodies = [json.loads(row["body"]) for row in await model.rows("select body from {schema}.event order by event_id")]
    assert row["open_requests"] == ["r\ufffd1"]
    assert bodies[0]["message"] == "literally \\u0000"
    assert bodies[1]["request_id"] == "r\ufffd1"
    assert bodies[1]["extensions"] == {"/a\ufffd\ufffd": '"x"', "/a\ufffd": '"y"'}
    assert model.metric("read_model_nul_replaced_total") == 2


@pytest.mark.parametrize("text", ["a\x00b", "x" * 3000], ids=["U+0000", "too long"])
async def test_a_foreign_record_of_odd_names_is_stored(model: ReadModel, text: str) -> None:
    """One that cannot be stored would stop all that share its batch, and end in the lot."""
    kept = stored_text(text)
    await model.apply(
        created(0)._replace(id=text, source=text, key=text),
        renewal_asked(1, key="", request_id="r1", prescription_id=None)._replace(key=f"req:{text}"),
    )

    history = await model.rows("select source, event_id, prescription_id from {schema}.event order by occurred_at")
    assert tuple(history[0].values()) == (kept, kept, kept)
    assert history[1]["prescription_id"] is None
    assert [row["source"] for row in await model.rows("select source from {schema}.prescription")] == [kept]


async def test_ids_of_any_length_are_stored(model: ReadModel) -> None:
    """A B-tree refuses rows beyond 2,704 bytes; none of the ids that others choose is in one."""
    long = "".join(Random(1).choices("abcdefghijklmnopqrstuvwxyz", k=200_000))  # noqa: S311 -- must not compress
    patient = {"id": long, "first_name": "A", "last_name": "B", "date_of_birth": date(1979, 2, 28)}

    await model.apply(
        renewal_asked(0, request_id=long, prescriber_order_number=long, patient=patient, account_id=long),
        renewal_asked(1, request_id=long, key=f"req:{long[:100]}", prescription_id=None),
        a_fact("renewal.responded", 2, request_id=long, decision="pending"),
    )

    assert (await model.prescription())["patient_id"] == long


async def test_an_update_of_another_type_is_history_and_moves_no_machine(model: ReadModel) -> None:
    await model.apply(worked_on(0, "packed"))
    before = await model.prescription()
    medication = dict.fromkeys(Medication.model_fields) | {"description": "lisinopril 10 mg"}
    await model.apply(a_fact("other.reported", 1, reported_type="prescription.expired", medication=medication))

    after = await model.prescription()
    told = {"events", "last_event_at", "last_event_type", "medication", "facts", "updated_at"}
    assert {name for name in after if after[name] != before[name]} == told
    assert (after["last_event_type"], after["medication"], after["display"]) == (
        "other.reported",
        "lisinopril 10 mg",
        "packed",
    )
    assert await model.rows("select body ->> 'reported_type' as word from {schema}.timeline order by counts_from") == [
        {"word": None},
        {"word": "prescription.expired"},
    ]


async def test_a_safety_signal_is_counted_when_it_comes_up(model: ReadModel) -> None:
    await model.apply(cancel_answered(0, request_id="c1", decision="approved"))
    assert model.metric("safety_signals_total", kind="dispensed_after_cancel") == 0

    await model.apply(filled(2, "dispensed"))
    await model.apply(filled(1, "dispensed", 1), filled(3, "dispensed", 2))

    assert model.metric("safety_signals_total", kind="dispensed_after_cancel") == 1
    assert (await model.prescription())["safety"] == ["dispensed_after_cancel"]


async def test_what_a_rebuild_reads_again_is_no_news(model_dsn: str) -> None:
    """On-call was told of it once; the row has it all the same."""
    async with open_model(model_dsn, alarms_from=str(START + timedelta(hours=6))) as model:
        for key, received_h in (("rx_old", 5), ("rx_new", 6)):
            received_at = START + timedelta(hours=received_h)
            await model.apply(
                cancel_answered(0, key=key, request_id="c1", decision="approved"),
                failed(0, id=f"f_{key}", key=key, relates_to_message_id="m1", retryable=False),
                filled(1, "dispensed", id=f"d_{key}", key=key, received_at=received_at),
                processed(1, id=f"p_{key}", key=key, relates_to_message_id="m1", received_at=received_at),
            )

        assert model.metric("safety_signals_total", kind="dispensed_after_cancel") == 1
        assert model.metric("read_model_anomalies_total", kind="processed_after_final_failure") == 1
        safety = [(await model.prescription(key))["safety"] for key in ("rx_old", "rx_new")]
        assert safety == [["dispensed_after_cancel"]] * 2


async def test_news_of_a_prescription_do_not_raise_its_old_signals_again(model_dsn: str) -> None:
    """Both in one batch, as a rebuild reads them."""
    async with open_model(model_dsn, alarms_from=str(START + timedelta(hours=6))) as model:
        await model.apply(
            cancel_answered(0, request_id="c1", decision="approved"), filled(1, "dispensed"), created(29 * 60)
        )

        assert model.metric("safety_signals_total", kind="dispensed_after_cancel") == 0
        assert (await model.prescription())["safety"] == ["dispensed_after_cancel"]


@pytest.mark.parametrize("known", [True, False], ids=["changed", "appeared"])
async def test_a_row_that_another_transaction_wrote_meanwhile_is_not_overwritten(model: ReadModel, known: bool) -> None:  # noqa: FBT001 -- a case
    """Possible where a key's events come through two topics: the fence is of one partition."""
    if known:
        await model.apply(created(0))

    async def another() -> None:
        await model.apply(cancel_asked(1, request_id="c1"))

    with pytest.raises(TransientError, match="row_changed"):
        async with model.database.transaction() as connection:
            await model.apply_within(Interleaved(connection, another), filled(2, "dispensed"))

    await model.apply(filled(2, "dispensed"))
    row = await model.prescription()
    assert (row["order_status"], row["dispense"], row["events"]) == ("cancel_pending", "dispensed", 3 if known else 2)


async def test_an_upgrade_in_place_keeps_what_was_there(postgres: str, tmp_path: Path) -> None:
    first, *_ = read_migrations(MIGRATIONS)
    (tmp_path / first.name).write_text(first.sql)
    async with open_model(postgres, migrations=tmp_path) as old:
        await old.apply(created(0), sent(1))
        before = await old.rows(ROWS), await old.rows(HISTORY)
    async with open_model(postgres) as new:
        after = await new.rows(ROWS), await new.rows(HISTORY)
        await new.apply(filled(2, "dispensed"))

        row = await new.prescription()
    assert after == before
    assert (row["display"], row["events"]) == ("dispensed", 3)
