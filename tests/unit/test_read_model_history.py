"""The stored history of an event, and the prescription of an event."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import orjson
import pytest
from hypothesis import given

from bridge.registry.loader import bundled
from bridge.registry.schemas import expand
from consumers.postgres.text import stored_text
from consumers.read_model.history import body_of, prescription_of, storable
from tests.prescriptions import a_fact, created, renewal_asked, worked_on
from tests.unit.schema_corpus import values

SENT = bundled().schemas()["drx.v1.PrescriptionSent"]


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (Decimal("1E+3"), "1000"),
        (Decimal("0.500"), "0.500"),
        (date(2026, 2, 3), "2026-02-03"),
        (datetime(2026, 2, 3, 4, 5, 6, 7, UTC), "2026-02-03T04:05:06.000007Z"),
        (datetime(2026, 2, 3, 4, 5, 6, 0, UTC), "2026-02-03T04:05:06Z"),
        (2**63 - 1, 2**63 - 1),
        (b"\x00\xff", "AP8="),
        ({"a": [None, True]}, {"a": [None, True]}),
    ],
)
def test_values_are_kept_as_json_that_loses_nothing(said: Any, kept: Any) -> None:
    assert orjson.loads(body_of(created(0, extensions=said)))["extensions"] == kept


def test_u_0000_becomes_u_fffd_wherever_it_is() -> None:
    event = a_fact(
        "epcs.signed", 0, id="e\x00", key="k\x00", factors=["a\x00", "b"], extensions={"/\x00": "\x00\x00", "/b": "b"}
    )

    clean, body, changed = storable(event)

    assert (clean.id, clean.key) == ("e\ufffd", "k\ufffd")
    assert clean.value["factors"] == ["a\ufffd", "b"]
    assert clean.value["extensions"] == {"/\ufffd": "\ufffd\ufffd", "/b": "b"}
    assert orjson.loads(body)["event_id"] == "e\ufffd"
    assert changed == 5  # event id, prescription id, factor, name and text of the extension


@pytest.mark.parametrize("name", ["id", "source", "key"])
def test_u_0000_in_what_the_record_does_not_repeat_is_replaced_too(name: str) -> None:
    foreign: dict[str, Any] = {name: "a\x00b"}
    kept: dict[str, Any] = {name: "a\ufffdb"}

    clean, _, changed = storable(created(0)._replace(**foreign))

    assert (clean, changed) == (created(0)._replace(**kept), 1)


def test_names_that_differ_in_u_0000_only_stay_two() -> None:
    event = created(0, extensions={"a\x00": "1", "a\ufffd": "2", "a\ufffd\ufffd": "3"})

    assert storable(event)[0].value["extensions"] == {"a\ufffd\ufffd\ufffd": "1", "a\ufffd": "2", "a\ufffd\ufffd": "3"}


@pytest.mark.parametrize("name", ["id", "source", "key"])
@pytest.mark.parametrize("text", ["x" * 3000, "\N{PILL}" * 200], ids=["long", "long in bytes"])
def test_what_is_too_long_for_an_index_is_kept_as_its_digest(name: str, text: str) -> None:
    foreign: dict[str, Any] = {name: text}

    clean, _, changed = storable(created(0)._replace(**foreign))

    assert getattr(clean, name) == stored_text(text) != text
    assert changed == 0


@given(value=values(expand(SENT)))
def test_any_record_of_the_contract_can_be_kept(value: dict[str, Any]) -> None:
    event = created(0)._replace(value=value)

    _, body, _ = storable(event)

    assert b"\\u0000" not in body.replace(b"\\\\", b"")
    assert set(orjson.loads(body)) == set(event.value)


@pytest.mark.parametrize(
    ("event", "row"),
    [
        (created(0, key="rx_1"), "rx_1"),
        (worked_on(0, "packed", key="q:7:12", prescription_id=None), "q:7:12"),
        (renewal_asked(0, request_id="r1", key="req:r1", prescription_id=None), None),
        (a_fact("prescriber.enrollment_changed", 0, key="prv_1", prescription_id=None), None),
        (a_fact("system.ping", 0, key="acct_1", prescription_id=None), None),
        (a_fact("other.reported", 0, key="acct_1", prescription_id=None), None),
        (a_fact("other.reported", 0), "rx_1"),
    ],
    ids=["prescription", "other source", "unmatched request", "prescriber", "account", "its update", "update"],
)
def test_only_an_event_about_a_prescription_has_a_row(event: Any, row: str | None) -> None:
    assert prescription_of(event) == row
