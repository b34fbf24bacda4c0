"""Every sample of a vendor matches its row of the table, in records that any Avro reader can read."""

import copy
import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import reduce
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.kafka.routing import UNRECOGNIZED_TOPIC, RoutingTable
from bridge.mapping.profile import Mapped
from tests.profile_properties import assert_writable
from tests.unit.profile_documents import SAMPLES, leaves
from tests.unit.vendor_documents import ROWS, push, sample

FULFILLMENT, SHIPMENT = "fulfillment.status_changed", "shipment.status_changed"
UPS = {"carrier": "ups", "tracking_number": "1Z999AA10123456784"}

# What the two events of a push about a parcel say at least, and those of one about a lot.
CASES: dict[str, list[tuple[str, str, dict[str, Any]]]] = {
    "p01": [
        (
            *(FULFILLMENT, "q:999001:9000471"),
            {"fulfillment_status": "received", "pharmacy_rx_number": "700273", "patient_pay": Decimal("15.00")},
        )
    ],
    "p03": [(FULFILLMENT, "q:999001:9000471", {"fulfillment_status": "approved", "lot_number": "LOT12345"})],
    "p04": [
        (FULFILLMENT, "q:999001:9000471", {"fulfillment_status": "handed_to_carrier", "queue_id": "9000471"}),
        (
            *(SHIPMENT, "q:999001:9000471"),
            UPS | {"shipment_status": "label_created", "estimated_delivery": date(2026, 9, 18)},
        ),
    ],
    "p05": [
        (FULFILLMENT, "q:999001:9000471", {"fulfillment_status": "delivered"}),
        (
            *(SHIPMENT, "q:999001:9000471"),
            UPS | {"shipment_status": "delivered", "delivered_at": datetime(2026, 9, 18, 17, 22, tzinfo=UTC)},
        ),
    ],
    "p07": [(FULFILLMENT, "q:999001:9000471", {"fulfillment_status": "rejected", "active": False})],
    "p08": [
        (FULFILLMENT, "q:9000471", {"fulfillment_status": "handed_to_carrier", "account_id": "acct_dev"}),
        (SHIPMENT, "q:9000471", UPS | {"shipment_status": "label_created", "account_id": "acct_dev"}),
    ],
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_a_sample_has_the_outcome_the_key_and_the_topic_of_the_manifest(row: dict[str, Any]) -> None:
    outcome = push(row["profile"], (SAMPLES / row["file"]).read_bytes())

    if row["outcome"] == "parked":
        assert isinstance(outcome, ParkReason)
        assert (outcome.reason, outcome.key or "<webhook-id>") == (row["reason"], row["kafka_key"])
        assert row["topic"] == UNRECOGNIZED_TOPIC
    else:
        assert isinstance(outcome, Mapped)
        topic_of = RoutingTable({}).topic_of_event
        assert {(event.key, topic_of(event), event.mapping) for event in outcome.events} == {
            (row["kafka_key"], row["topic"], "")
        }


@pytest.mark.parametrize("name", CASES)
def test_a_push_says_what_the_table_says(name: str) -> None:
    outcome, wanted = push("digitalrx_pharmacy", sample(name)), CASES[name]

    assert isinstance(outcome, Mapped)
    assert [(event.type, event.key) for event in outcome.events] == [(kind, key) for kind, key, _ in wanted]
    for event, (_, _, fields) in zip(outcome.events, wanted, strict=True):
        assert {name: event.value[name] for name in fields} == fields
        assert_writable(event)


# Kept nowhere on purpose: what nobody should hold.
DROPPED = re.compile(r"/Insurance/.*|/Patient/(SSN|Employer.*|DateOfInjury)")


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["file"])
def test_whatever_a_member_says_is_in_the_events(row: dict[str, Any]) -> None:
    body = json.loads((SAMPLES / row["file"]).read_bytes())
    for pointer, _ in leaves(body):
        changed = copy.deepcopy(body)
        *way, last = pointer.split("/")[1:]
        holder: Any = reduce(lambda value, step: value[int(step) if isinstance(value, list) else step], way, changed)
        holder[int(last) if isinstance(holder, list) else last] = "CANARY-7"

        outcome = push(row["profile"], changed)

        if isinstance(outcome, Mapped):
            kept = "CANARY-7" in repr([event.value for event in outcome.events])
            assert kept != bool(DROPPED.fullmatch(pointer)), pointer
        else:
            assert outcome.reason in ("unusable", "unknown_type")
