"""The CloudEvents of Photon: an order is an event for each of its prescriptions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Mapped
from tests.profile_properties import assert_writable
from tests.unit.vendor_documents import events, push, said

PROFILE = "photon_cloudevents"
FILLS = [
    {"id": "fil_1", "prescription": {"id": "rx_1", "externalId": "pon_1"}},
    {"id": "fil_2", "treatment": {"name": "without a prescription"}},
    {"id": "fil_3", "prescription": {"id": "rx_3"}},
]


def order(kind: str, **data: Any) -> dict[str, Any]:
    return {
        "id": "ce_1",
        "type": f"photon:order:{kind}",
        "specversion": "1.0",
        "time": "2026-09-14T15:09:26.000Z",
        "subject": "ord_1",
        "source": "org:org_1",
        "data": {"id": "ord_1", "fills": FILLS} | data,
    }


def prescription(**data: Any) -> dict[str, Any]:
    return order("x") | {"type": "photon:prescription:created", "data": {"id": "rx_1", "externalId": "pon_1"} | data}


def test_an_order_is_an_event_for_each_fill_with_a_prescription() -> None:
    outcome = push(PROFILE, order("placed"), id="dlv_1")

    assert isinstance(outcome, Mapped)
    assert [(event.id, event.key) for event in outcome.events] == [("ce_1/1", "ph:rx_1"), ("ce_1/3", "ph:rx_3")]
    first, second = outcome.events
    assert first.occurred_at == datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)
    assert (first.value["account_id"], first.value["correlation_id"]) == ("ph:org_1", "ord_1")
    assert (first.value["prescriber_order_number"], second.value["prescriber_order_number"]) == ("pon_1", None)
    assert first.value["extensions"] == {"/data/fills/0/id": '"fil_1"', "/data/fills/1": _text(FILLS[1])}
    assert second.value["extensions"] == {"/data/fills/2/id": '"fil_3"'}
    assert outcome.flags == ()


def _text(value: object) -> str:
    assert value == FILLS[1]
    return '{"id":"fil_2","treatment":{"name":"without a prescription"}}'


@pytest.mark.parametrize("kind", ["placed", "rerouted"])
def test_an_order_placed_is_a_prescription_sent(kind: str) -> None:
    event = events(PROFILE, order(kind))[1]

    assert event.type == "prescription.sent"
    assert said(event) == {
        "delivery_mode": "erx",
        "attempt": 1,
        "network_status": {
            "kind": "status",
            "raw_kind": None,
            "code": "000",
            "description_code": None,
            "description": None,
        },
    }
    assert_writable(event)


def test_an_order_canceled_is_an_answer() -> None:
    event = events(PROFILE, order("canceled"))[1]

    assert (event.type, said(event)) == ("cancel.responded", {"request_id": "ord_1", "decision": "approved"})
    assert_writable(event)


def test_an_order_completed_is_delivered() -> None:
    event = events(PROFILE, order("completed"))[1]

    assert event.type == "fulfillment.status_changed"
    assert said(event) == {"queue_id": "fil_3", "fulfillment_status": "delivered"}
    assert_writable(event)


def test_a_prescription_created_awaits_a_pharmacy() -> None:
    (event,) = events(PROFILE, prescription())

    assert (event.id, event.type, event.key) == ("ce_1/1", "prescription.created", "ph:rx_1")
    assert said(event) == {"origin": "new", "awaiting": "pharmacy", "prescriber_order_number": "pon_1"}
    assert event.value["correlation_id"] == "rx_1"
    assert event.value["extensions"] == {}
    assert_writable(event)


@pytest.mark.parametrize(
    ("data", "states", "status", "raw", "word"),
    [
        ({"fulfillment": {"state": "SHIPPED"}}, "SHIPPED=handed_to_carrier", "handed_to_carrier", None, "SHIPPED"),
        ({"state": "Ready"}, "x=billing, ready = packed", "packed", None, "Ready"),
        ({"fulfillment": {"state": "READY"}, "state": "SENT"}, "", "UNKNOWN", "READY", "READY"),
        ({"fulfillment": {"state": ""}, "state": "SENT"}, "", "UNKNOWN", "SENT", "SENT"),
        ({"fulfillment": "none", "state": "delivered"}, "", "delivered", None, "delivered"),
    ],
)
def test_the_state_of_a_fulfilment_is_a_word_of_the_option_s_table(
    data: dict[str, Any], states: str, status: str, raw: str | None, word: str
) -> None:
    profile = load_profile(PROFILE, {"states": states} if states else {})

    for event, fill in zip(events(profile, order("fulfillment", **data)), ("fil_1", "fil_3"), strict=True):
        value = event.value
        assert (value["fulfillment_status"], value["raw_fulfillment_status"]) == (status, raw)
        assert (value["raw_status"], value["queue_id"]) == (word, fill)


@pytest.mark.parametrize(("state", "detail"), [(None, "missing_field"), (7, "wrong_type"), ({}, "wrong_type")])
def test_a_fulfilment_without_a_state_parks(state: object, detail: str) -> None:
    outcome = push(PROFILE, order("fulfillment", fulfillment={"state": state}))

    assert outcome == ParkReason("unusable", detail, "/data/fulfillment/state", "ph:rx_1")


@pytest.mark.parametrize("fills", [None, [], {}, [7], [{"id": "fil_1"}], [{"prescription": None}]])
def test_an_order_without_prescriptions_parks(fills: object) -> None:
    assert push(PROFILE, order("placed", fills=fills)) == ParkReason(
        "unusable", "no_key", "/data/fills/*/prescription/id"
    )


def test_a_fill_without_an_id_parks_where_it_is_needed() -> None:
    fills = [{"prescription": {"id": "rx_1"}}]

    assert push(PROFILE, order("completed", fills=fills)) == ParkReason(
        "unusable", "missing_field", "/data/fills/*/id", "ph:rx_1"
    )
    assert len(events(PROFILE, order("placed", fills=fills))) == 1


def test_another_event_of_an_order_is_reported_of_each_prescription() -> None:
    found = events(PROFILE, order("created"))

    assert [(event.id, event.type, event.key) for event in found] == [
        ("ce_1/1", "other.reported", "ph:rx_1"),
        ("ce_1/3", "other.reported", "ph:rx_3"),
    ]
    assert {event.value["reported_type"] for event in found} == {"photon:order:created"}
    assert {event.value["account_id"] for event in found} == {"ph:org_1"}


@pytest.mark.parametrize("kind", ["depleted", "expired"])
def test_another_event_of_a_prescription_is_reported_of_it(kind: str) -> None:
    (event,) = events(PROFILE, prescription() | {"type": f"photon:prescription:{kind}"})

    assert (event.id, event.type, event.key) == ("ce_1/1", "other.reported", "ph:rx_1")
    assert (event.value["reported_type"], event.value["account_id"]) == (f"photon:prescription:{kind}", "ph:org_1")
    assert event.value["extensions"] == {"/data/externalId": '"pon_1"'}


@pytest.mark.parametrize("kind", ["photon:order:created", "photon:prescription:expired", "photon:patient:updated"])
def test_an_event_without_a_prescription_is_reported_of_its_account(kind: str) -> None:
    (event,) = events(PROFILE, order("x", fills=[FILLS[1]], id=None) | {"type": kind})

    assert (event.id, event.key, event.value["prescription_id"]) == ("ce_1/1", "acct_dev", None)
    assert event.value["extensions"]["/source"] == '"org:org_1"'  # type: ignore[index]
    assert '"fil_2"' in str(event.value["extensions"])


def test_an_event_without_a_source_has_the_account_of_the_option_or_parks() -> None:
    body = prescription() | {"source": None}

    assert events(PROFILE, body)[0].value["account_id"] == "acct_dev"
    assert push(load_profile(PROFILE), body) == ParkReason("unusable", "missing_field", "/source", "ph:rx_1")
