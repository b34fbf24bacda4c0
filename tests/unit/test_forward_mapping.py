"""Which events an endpoint gets, and what of them."""

from __future__ import annotations

import orjson
import pytest

from bridge.errors import ConfigError, PermanentError
from consumers.api import Context
from consumers.forward.mapping import Mapping
from consumers.testing import an_event


def a_context(origin: str = "") -> Context:
    return Context("forward", "drx.prescriptions.v1", 0, 7, "i:7", 1, origin=origin)


def sends(mapping: Mapping, event_type: str = "prescription.sent", *, origin: str = "", **fields: object) -> bool:
    return mapping.request(an_event(event_type, **fields), a_context(origin)) is not None  # type: ignore[arg-type]  # fields of the record


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

    request = mapping.request(event, a_context())

    assert request is not None
    assert b"Berry" not in request.body
    assert orjson.loads(request.body)["data"]["prescription_id"] == "rx_1"


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


def test_body_and_path_are_the_receivers_own() -> None:
    event = an_event("fill.status_changed", key="rx_1")
    body = "{id: data.prescription_id, kind: type, none: data.nothing}"

    request = Mapping(body=body, path="/orders/{data.prescription_id}/x?t={type}").request(event, a_context())

    assert request == (
        "/orders/rx_1/x?t=fill.status_changed",
        b'{"id":"rx_1","kind":"fill.status_changed","none":null}',
    )


@pytest.mark.parametrize(("value", "segment"), [("a/b?c#d%2F é", "a%2Fb%3Fc%23d%252F%20%C3%A9"), ("7", "7")])
def test_a_value_stays_within_its_place_of_the_path(value: str, segment: str) -> None:
    event = an_event("fill.status_changed", note=value)

    request = Mapping(path="/m/{data.note}").request(event, a_context())

    assert request is not None
    assert request.path == f"/m/{segment}"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"body": "data.nothing"}, "body_failed"),
        ({"body": "[type]"}, "body_failed"),
        ({"body": "{a: to_number('123456789012345678901234567890')}"}, "body_failed"),
        ({"body": "{a: contains(data.attempt, 'x')}"}, "body_failed"),
        ({"path": "/{data.nothing}"}, "path_failed"),
        ({"path": "/{data}"}, "path_failed"),
        ({"path": "/{'..'}"}, "path_failed"),
        ({"path": "/{contains(data.attempt, 'x')}"}, "path_failed"),
    ],
)
def test_what_has_no_usable_result_parks(options: dict[str, str], code: str) -> None:
    with pytest.raises(PermanentError, match=f"^{code}$"):
        sends(Mapping(**options))  # type: ignore[arg-type]  # all are texts


@pytest.mark.parametrize(
    "options", [{"body": "{a:"}, {"path": "/{a.[}"}, {"path": "a"}, {"path": "/a b"}, {"path": "/{}"}]
)
def test_a_shape_that_cannot_be_ends_the_start(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"^forward\.{next(iter(options))}: "):
        Mapping(**options)  # type: ignore[arg-type]  # as above
