"""Which events an endpoint gets, and what of them."""

from __future__ import annotations

import orjson
import pytest

from bridge.contract.native import native_json
from bridge.errors import ConfigError, PermanentError
from consumers.api import Context
from consumers.forward.mapping import Mapping, is_header_text
from consumers.testing import an_event


def a_context(origin: str = "") -> Context:
    return Context("forward", "drx.prescriptions.v1", 0, 7, "i:7", 1, origin=origin)


def sends(mapping: Mapping, event_type: str = "prescription.sent", *, origin: str = "", **fields: object) -> bool:
    return mapping.body(an_event(event_type, **fields), a_context(origin)) is not None  # type: ignore[arg-type]  # fields of the record


def test_an_event_is_sent_whole_unless_something_is_said() -> None:
    event = an_event("fill.status_changed")

    assert Mapping().body(event, a_context()) == native_json(event.value)


def test_a_ping_is_sent_only_if_it_is_named() -> None:
    assert not sends(Mapping(), "system.ping")
    assert not sends(Mapping(types=("system.*",)), "system.ping")
    assert sends(Mapping(types=("system.ping",)), "system.ping")


def test_imports_are_sent_only_if_that_is_said() -> None:
    assert not sends(Mapping(), origin="import")
    assert sends(Mapping(), origin="replay")
    assert sends(Mapping(imports=True), origin="import")


def test_an_account_is_told_by_its_whole_id() -> None:
    mapping = Mapping(accounts=("acct_1",))

    assert sends(mapping, account_id="acct_1")
    assert not sends(mapping, account_id="acct_10")


@pytest.mark.parametrize(
    ("when", "sent"),
    [
        ("data.attempt == `1`", True),
        ("data.attempt == `2`", False),
        ("data.attempt", True),
        ("data.nothing", False),
        ("`0`", True),
        ("`false`", False),
        ("`[]`", False),
        ("`{}`", False),
        ("''", False),
        ("data.network_status.code == 'code'", True),
        ("type == 'prescription.sent' && environment == 'sandbox'", True),
    ],
)
def test_an_expression_says_what_is_sent(when: str, *, sent: bool) -> None:
    assert sends(Mapping(when=when)) is sent


def test_an_expression_sees_what_is_not_sent() -> None:
    mapping = Mapping(when="data.patient.last_name == 'Berry'", phi=False)
    event = an_event("prescription.sent", patient={"last_name": "Berry"})

    body = mapping.body(event, a_context())

    assert body is not None
    assert b"Berry" not in body
    assert orjson.loads(body)["data"]["prescription_id"] == "rx_1"


@pytest.mark.parametrize("when", ["contains(data.attempt, 'x')", "a || " * 800 + "a"], ids=["type", "nested"])
def test_an_expression_without_an_answer_parks_and_shows_no_value(when: str) -> None:
    with pytest.raises(PermanentError, match=r"^when_failed$") as caught:
        sends(Mapping(when=when))

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("when", ["data.[", "(" * 2000 + "a" + ")" * 2000], ids=["syntax", "nested"])
def test_what_is_no_expression_ends_the_start(when: str) -> None:
    with pytest.raises(ConfigError, match="JMESPath"):
        Mapping(when=when)


@pytest.mark.parametrize("event_id", ["a b", "a\r\nx: y", "é", "\x7f"])
def test_an_id_that_cannot_stand_in_a_header_parks(event_id: str) -> None:
    with pytest.raises(PermanentError, match="bad_id"):
        sends(Mapping(), id=event_id)


def test_what_may_stand_in_a_header() -> None:
    assert is_header_text("dlv_1/2")
    assert not is_header_text("")
