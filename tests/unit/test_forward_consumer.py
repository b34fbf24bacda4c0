"""The settings of forward: filters, content and signature of requests."""

from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError, PermanentError
from bridge.proof.scheme import KeySlot, Raw
from bridge.proof.schemes.standard_webhooks import StandardWebhooks, parse_secret
from bridge.runtime.secret_files import load_slots
from consumers.api import Context, Lanes, Setup
from consumers.forward.consumer import open_forward
from consumers.forward.mapping import RequestMapping
from consumers.forward.options import ForwardOptions
from consumers.forward.sink import SigningSlot, parse_slot, read_headers, signatures
from consumers.options import read_options
from consumers.testing import an_event
from tests.unit.test_secrets import whsec

LEAST = {"url": "https://ehr.example/drx", "secrets_dir": "/etc/drx-bridge/forward"}


def setup(**options: str) -> Setup:
    return Setup({**LEAST, **options}, CollectorRegistry())


def test_each_instance_is_a_group_of_its_own() -> None:
    consumer = open_forward(setup(instance="ehr", lanes="64", types="renewal.*, fill.status_changed", timeout_s="30"))

    assert (consumer.name, consumer.group) == ("forward", "forward.ehr")
    assert consumer.mode == Lanes(64)
    assert consumer.wants("renewal.requested")
    assert not consumer.wants("prescription.sent")
    assert consumer.handler_timeout_s > 30


async def test_plain_http_must_be_allowed(tmp_path: object) -> None:
    consumer = open_forward(setup(url="http://ehr.example", secrets_dir=str(tmp_path)))

    assert consumer.around is not None
    with pytest.raises(ConfigError):
        async with consumer.around():
            pass


def a_context(origin: str = "") -> Context:
    return Context("forward", "drx.prescriptions.v1", 0, 7, "i:7", 1, origin=origin)


def mapping_of(**options: str) -> RequestMapping:
    return RequestMapping(read_options(ForwardOptions, "forward", LEAST | options))


def sends(
    mapping: RequestMapping, event_type: str = "prescription.sent", *, origin: str = "", **fields: object
) -> bool:
    return mapping.request(an_event(event_type, **fields), a_context(origin)) is not None  # type: ignore[arg-type]  # fields of the record


PING = {"event_type": "system.ping"}


@pytest.mark.parametrize(
    ("options", "event", "sent"),
    [
        ({}, PING, False),
        ({"types": "system.*"}, PING, False),
        ({"types": "system.ping"}, PING, True),
        ({}, {"origin": "import"}, False),
        ({}, {"origin": "replay"}, True),
        ({"imports": "send"}, {"origin": "import"}, True),
        ({"accounts": "acct_1"}, {"account_id": "acct_1"}, True),
        ({"accounts": "acct_1"}, {"account_id": "acct_10"}, False),
        ({"when": "data.attempt == `1`"}, {}, True),
        ({"when": "data.attempt == `2`"}, {}, False),
        ({"when": "data.attempt"}, {}, True),
        *(({"when": when}, {}, True) for when in ("`0`", "")),
        *(({"when": when}, {}, False) for when in ("data.nothing", "`false`", "`[]`", "`{}`", "''")),
        ({"when": "data.network_status.code == 'code'"}, {}, True),
        ({"when": "type == 'prescription.sent' && environment == 'sandbox'"}, {}, True),
    ],
)
def test_settings_say_which_events_are_sent(options: dict[str, str], event: dict[str, str], *, sent: bool) -> None:
    assert sends(mapping_of(**options), **event) is sent


def test_an_expression_sees_what_is_not_sent() -> None:
    mapping = mapping_of(when="data.patient.last_name == 'Berry'", payload="ids")

    request = mapping.request(an_event("prescription.sent", patient={"last_name": "Berry"}), a_context())

    assert request is not None
    assert b"Berry" not in request.body
    assert orjson.loads(request.body)["data"]["prescription_id"] == "rx_1"


@pytest.mark.parametrize("when", ["contains(data.attempt, 'x')", "a || " * 800 + "a"], ids=["type", "nested"])
def test_an_expression_without_an_answer_parks_and_shows_no_value(when: str) -> None:
    with pytest.raises(PermanentError, match=r"^when_failed$") as caught:
        sends(mapping_of(when=when))

    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_body_and_path_are_the_receivers_own() -> None:
    event = an_event("fill.status_changed", key="rx_1")
    body = "{id: data.prescription_id, kind: type, none: data.nothing}"

    request = mapping_of(body=body, path="/orders/{data.prescription_id}/x?t={type}").request(event, a_context())

    assert request == (
        "/orders/rx_1/x?t=fill.status_changed",
        b'{"id":"rx_1","kind":"fill.status_changed","none":null}',
    )


@pytest.mark.parametrize(("value", "segment"), [("a/b?c#d%2F é", "a%2Fb%3Fc%23d%252F%20%C3%A9"), ("7", "7")])
def test_a_value_stays_within_its_place_of_the_path(value: str, segment: str) -> None:
    event = an_event("fill.status_changed", note=value)

    request = mapping_of(path="/m/{data.note}").request(event, a_context())

    assert request is not None
    assert request.path == f"/m/{segment}"


@pytest.mark.parametrize(
    ("options", "fields", "code"),
    [
        *(({}, {"id": event_id}, "bad_id") for event_id in ("a b", "a\r\nx: y", "é", "\x7f")),
        ({"body": "data.nothing"}, {}, "body_failed"),
        ({"body": "[type]"}, {}, "body_failed"),
        ({"body": "{a: to_number('123456789012345678901234567890')}"}, {}, "body_failed"),
        ({"body": "{a: contains(data.attempt, 'x')}"}, {}, "body_failed"),
        ({"path": "/{data.nothing}"}, {}, "path_failed"),
        ({"path": "/{data}"}, {}, "path_failed"),
        *(
            ({"path": f"/{{'{way}'}}"}, {}, "path_failed")
            for way in ("..", "..;", "x/../y", "..\\\\y", "%2e%2E", ".;v=1")
        ),
        ({"path": "/{contains(data.attempt, 'x')}"}, {}, "path_failed"),
    ],
)
def test_what_has_no_usable_id_or_result_parks(options: dict[str, str], fields: dict[str, str], code: str) -> None:
    with pytest.raises(PermanentError, match=f"^{code}$"):
        sends(mapping_of(**options), **fields)


@pytest.mark.parametrize(
    "options",
    [
        *({"when": when} for when in ("data.[", "(" * 2000 + "a" + ")" * 2000)),
        *({"body": "{a:"}, {"path": "/{a.[}"}, {"path": "a"}, {"path": "/a b"}, {"path": "/{}"}),
    ],
    ids=lambda options: str(options)[:20],
)
def test_a_shape_that_cannot_be_ends_the_start(options: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=rf"^forward\.{next(iter(options))}: "):
        mapping_of(**options)


NOW = datetime(2026, 9, 14, 15, 9, 26, 535897, tzinfo=UTC)
BODY = '{"name":"Zoë"}'.encode()


def slots(directory: Path, **files: str) -> tuple[SigningSlot, ...]:
    for name, text in files.items():
        (directory / name).write_text(text)
    return load_slots(directory, parse_slot)


def proved_by(signature: str, secret: str, *, now: datetime = NOW) -> str:
    """Verify as the ingress does, which its vectors hold to the standard; return the slot."""
    heads = {
        b"webhook-id": b"evt_1",
        b"webhook-timestamp": str(int(now.timestamp())).encode(),
        b"webhook-signature": signature.encode(),
    }
    key = KeySlot("current", parse_secret(secret))
    return StandardWebhooks().verify(Raw(heads, BODY), [key], now.timestamp()).slot


def test_every_secret_that_counts_signs(tmp_path: Path) -> None:
    found = slots(
        tmp_path,
        current=whsec(1),
        previous=f"{whsec(2)}\naccept_until = 2026-09-14T15:09:27Z\n",
        old=f"{whsec(3)}\naccept_until = 2026-09-14T15:09:26Z\n",
        coming=f"{whsec(4)}\nnot_before = 2026-09-15T00:00:00Z\n",
    )

    signed = signatures(found, webhook_id="evt_1", now=NOW.timestamp(), body=BODY)

    assert len(signed.split(" ")) == 2
    assert proved_by(signed, whsec(1)) == proved_by(signed, whsec(2)) == "current"
    with pytest.raises(Exception, match="signature_mismatch"):
        proved_by(signed, whsec(3))


def test_static_headers_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer a:b c\n\nx-team :  desk \n")

    assert read_headers(file) == {"authorization": "Bearer a:b c", "x-team": "desk"}
    assert read_headers(None) == {}


@pytest.mark.parametrize(
    "text",
    [
        *("no header\n", "a b: hunter2\n", "x: hunter2\nX: hunter2\n", "webhook-id: hunter2\n"),
        *("Content-Length: 7\n", "drx-x: 1\n", "host: hunter2\n", "x: hunter2\x00\n", "x: hünter2\n"),
    ],
)
def test_a_line_that_is_no_header_of_theirs_ends_the_start_and_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match="headers_file") as caught:
        read_headers(file)

    assert "hunter2" not in str(caught.value)
