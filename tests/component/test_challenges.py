"""Registration of the endpoint by a vendor: published handshakes, and requests that are not handshakes."""

import json
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.event import Delivery
from bridge.ingress.challenges import BURST, QUERY_MAX_CHARS, Challenge, read_challenge
from bridge.ingress.responses import ROUTE
from bridge.mapping.profile import Mapped
from bridge.proof.scheme import FixedSecrets, KeySlot
from bridge.proof.schemes.parameters import ParameterError
from bridge.proof.schemes.presets import configure
from bridge.settings import SourceSettings
from bridge.sources import challenge_of, scheme_of
from docs.openapi import openapi
from tests.builders import a_body, an_event
from tests.component.test_ingress import Exploding, Ingress, a_source, running
from tests.logs import capture_logs

DOCUMENTED = openapi()["paths"][ROUTE]
TOKEN = "a-verification-token-of-redox"
JSON = {"content-type": "application/json"}
REDOX = {"verification-token": TOKEN, "challenge": "2e73f864-a0e9-4764-a7d5-91fe5836db22"}
EVENT_GRID = [
    {
        "id": "2d1781af-3a4c-4d7c-bd0c-e34b19da4e66",
        "topic": "/subscriptions/xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx",
        "subject": "",
        "data": {
            "validationCode": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6",
            "validationUrl": "https://rp-eastus2.eventgrid.azure.net:553/eventsubscriptions/myeventsub/validate?id=0000",
        },
        "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
        "eventTime": "2022-10-28T04:23:35.1981776Z",
        "metadataVersion": "1",
        "dataVersion": "1",
    }
]


def written(document: object) -> bytes:
    return json.dumps(document).encode()


def a_challenge(text: str, token: str = "") -> Challenge:
    challenge = read_challenge(text, token)
    assert challenge is not None
    return challenge


def a_registering(
    challenge: str, token: str = "", *, scheme: str = "secret_header", **source: Any
) -> AbstractAsyncContextManager[Ingress]:
    parameters = {"header": "verification-token"} if scheme == "secret_header" else {}
    built = configure(scheme, parameters, tolerance_s=300)
    slots = FixedSecrets((KeySlot("current", built.parse_key(TOKEN)),))
    return running(sources=[a_source(scheme=built, secrets=slots, challenge=a_challenge(challenge, token), **source)])


async def asked(
    ingress: Ingress,
    *,
    method: str = "POST",
    query: str = "",
    headers: Mapping[str, str] | None = None,
    body: object = None,
) -> tuple[int, str, Mapping[str, str]]:
    """Ask for a handshake; check that nothing is published, no value logged, and that OpenAPI has the response."""
    content = b"" if body is None else body if isinstance(body, bytes) else orjson.dumps(body)
    url = f"{ingress.url}/webhooks/drx{query and '?'}{query}"
    with capture_logs() as lines:
        async with ingress.session.request(method, url, data=content or None, headers=headers) as answer:
            said = answer.status, await answer.text(), answer.headers
    if operation := DOCUMENTED.get(method.lower()):
        documented = operation["responses"][str(said[0])]
        assert answer.content_type in documented["content"]
        assert documented.get("headers", {}).keys() <= {*said[2]}
        assert said[0] == 200 or orjson.loads(said[1])["code"] in documented["description"]
    assert ingress.publisher.published == []
    assert ingress.admission.count == 0
    values = [pair.partition("=")[2] for pair in query.split("&")]
    values += [*(headers or {}).values(), TOKEN, "91fe5836db22", "512d38b6"]
    assert not [value for value in values if len(value) > 4 and value in str(lines)]
    if said[0] == 200:
        assert [line["event"] for line in lines] == ["delivery.challenged"]
    return said


async def test_redox_verifies_by_post_and_sends_its_first_event() -> None:
    async with a_registering("body:challenge", "member:verification-token") as ingress:
        said = await asked(ingress, headers=JSON, body=REDOX)
        wrong = await asked(ingress, headers=JSON, body=REDOX | {"verification-token": "x"})
        first = await ingress.post(a_body(id="evt_9"), headers={**JSON, "verification-token": TOKEN})

    assert said[:2] == (200, REDOX["challenge"])
    assert said[2]["content-type"] == "text/plain"
    assert said[2]["x-content-type-options"] == "nosniff"
    assert (wrong[0], orjson.loads(wrong[1])["code"]) == (401, "signature_mismatch")
    assert (first[0], first[1]["outcome"]) == (200, "accepted")


async def test_redox_verifies_with_a_header() -> None:
    async with a_registering("body_json:challenge", "header:verification-token") as ingress:
        said = await asked(ingress, headers={**JSON, "verification-token": TOKEN}, body=REDOX)
        wrong = await asked(ingress, headers={**JSON, "verification-token": TOKEN[1:]}, body=REDOX)
        missing = await asked(ingress, headers=JSON, body=REDOX)

    assert (said[0], orjson.loads(said[1])) == (200, {"challenge": REDOX["challenge"]})
    assert [orjson.loads(each[1])["code"] for each in (wrong, missing)] == ["signature_mismatch", "signature_missing"]


async def test_redox_verifies_by_get() -> None:
    query = f"challenge={REDOX['challenge']}&verification-token="
    async with a_registering("query:challenge", "member:verification-token") as ingress:
        said = await asked(ingress, method="GET", query=query + TOKEN)
        wrong = await asked(ingress, method="GET", query=f"{query}{TOKEN}x")
        missing = await asked(ingress, method="GET", query=query)

    assert said[:2] == (200, REDOX["challenge"])
    assert [orjson.loads(each[1])["code"] for each in (wrong, missing)] == ["signature_mismatch"] * 2


async def test_event_grid_validates_a_subscription() -> None:
    headers = {**JSON, "aeg-event-type": "SubscriptionValidation"}
    async with a_registering("eventgrid", scheme="url_token") as ingress:
        said = await asked(ingress, headers=headers, query=f"token={TOKEN}", body=EVENT_GRID)
        unproved = await asked(ingress, headers=headers, body=EVENT_GRID)
        notified, renamed = {**headers, "aeg-event-type": "Notification"}, [{**EVENT_GRID[0], "eventType": "Other"}]
        url, others = f"{ingress.url}/webhooks/drx?token={TOKEN}", []
        for sent, given in ((notified, EVENT_GRID), (headers, renamed), (headers, EVENT_GRID * 2)):
            async with ingress.session.post(url, json=given, headers=sent) as answer:
                others.append((await answer.json())["outcome"])

    assert (said[0], orjson.loads(said[1])) == (200, {"validationResponse": "512d38b6-c7b8-40c8-89fe-f46f9e9622b6"})
    assert unproved[0] == 401
    assert others == ["parked"] * 3


async def test_cloudevents_asks_for_permission() -> None:
    headers = {"WebHook-Request-Origin": "eventemitter.example.com", "WebHook-Request-Rate": "120"}
    async with a_registering("cloudevents") as ingress:
        status, text, answered = await asked(ingress, method="OPTIONS", headers=headers)
        without = await asked(ingress, method="OPTIONS")

    assert (status, text) == (200, "")
    assert answered["webhook-allowed-origin"] == "eventemitter.example.com"
    assert answered["webhook-allowed-rate"] == "*"
    assert answered["allow"] == "POST"
    assert without[0] == 405


async def test_meta_verifies_by_get() -> None:
    query = "hub.mode=subscribe&hub.challenge=1158201444&hub.verify_token=meatyhamhock"
    async with a_registering("query:hub.challenge") as ingress:
        said = await asked(ingress, method="GET", query=query)

        labels = {"route": ROUTE, "method": "other", "outcome": "challenged", "code": ""}
        assert ingress.metrics.registry.get_sample_value("drxbridge_http_requests_total", labels) == 1

    assert said[:2] == (200, "1158201444")


@pytest.mark.parametrize(
    ("method", "query", "body"),
    [
        ("GET", "", None),
        ("GET", "challenge=", None),
        ("GET", f"challenge={'x' * 513}", None),
        ("GET", "challenge=a%0d%0aSet-Cookie:b", None),
        ("GET", "challenge=%C3%A9", None),
        ("GET", f"challenge=abc&more={'x' * QUERY_MAX_CHARS}", None),
        ("GET", "challenge=a&challenge=b", None),
        ("GET", "challenge=abc", b"{}"),
        ("HEAD", "challenge=abc", None),
        ("PUT", "challenge=abc", None),
        ("OPTIONS", "challenge=abc", None),
    ],
)
async def test_another_question_is_no_handshake(method: str, query: str, body: bytes | None) -> None:
    async with a_registering("query:challenge") as ingress:
        said = await asked(ingress, method=method, query=query, body=body)

    assert said[0] == 405


@pytest.mark.parametrize(
    "body",
    [
        {"challenge": "x" * 513},
        {"challenge": 7},
        {"challenge": "x", "data": {}},
        {"challenge": "x", "more": "y" * 4096},
        {"other": "x"},
        ["challenge"],
        b'{"challenge": "x"',
    ],
)
async def test_a_proved_body_that_is_no_handshake_is_parked(body: object) -> None:
    headers = {**JSON, "verification-token": TOKEN}
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    async with a_registering("body:challenge") as ingress:
        status, answer = await ingress.post(content, headers=headers)

    assert (status, answer["outcome"]) == (202, "parked")


class Flat:
    """A profile to which every body is an event."""

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Mapped:
        del document
        return Mapped((an_event(id=delivery.id),))


async def test_a_body_that_is_an_event_is_one_and_a_token_proves_none() -> None:
    """Also where it has the member: a handshake must cost no event."""
    async with a_registering("body:challenge", "member:verification-token", profile=Flat()) as ingress:
        by_token = await asked(ingress, headers=JSON, body=REDOX)
        proved = await ingress.post(orjson.dumps(REDOX), headers={**JSON, "verification-token": TOKEN})

    assert (by_token[0], orjson.loads(by_token[1])["code"]) == (401, "signature_missing")
    assert (proved[0], proved[1]["outcome"]) == (200, "accepted")


async def test_a_bug_of_ours_takes_no_body_for_a_handshake() -> None:
    async with a_registering("body:challenge", profile=Exploding()) as ingress:
        parked = await ingress.post(orjson.dumps(REDOX), headers={**JSON, "verification-token": TOKEN})

    assert (parked[0], parked[1]["reason"]) == (202, "unexpected")


async def test_an_update_of_the_account_alone_may_be_a_handshake() -> None:
    """A mapping with `reported` makes one of any body."""
    body = {
        "challenge": "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmd",
        "account_id": "acct_1",
        "version": "1",
        "environment": "sandbox",
        "timestamp": "2026-01-31T00:00:00Z",
    }
    async with a_registering("body:challenge") as ingress:
        said = await asked(ingress, headers={**JSON, "verification-token": TOKEN}, body=body)

    assert said[:2] == (200, body["challenge"])


async def test_a_handshake_that_proves_nothing_is_rate_limited() -> None:
    async with a_registering("query:challenge") as ingress:
        codes = [(await asked(ingress, method="GET", query="challenge=abc"))[0] for _ in range(BURST + 1)]

    assert codes == [200] * BURST + [429]


QUERIES = st.text(max_size=50) | st.lists(st.sampled_from("&=;%+ct01\udcff"), max_size=300).map("".join)
DOCUMENTS = st.recursive(
    st.none() | st.text(), lambda inner: st.dictionaries(st.sampled_from(["c", "t", "data"]), inner) | st.lists(inner)
)


@given(
    kind=st.sampled_from(["query:c", "body:c", "body_json:c", "eventgrid", "cloudevents"]),
    query=QUERIES,
    body=st.binary(max_size=50) | DOCUMENTS.map(written),
    origin=st.binary(max_size=20),
)
def test_whatever_is_asked_is_answered_or_refused(kind: str, query: str, body: bytes, origin: bytes) -> None:
    challenge = a_challenge(kind, "" if kind in {"eventgrid", "cloudevents"} else "member:t")
    heads = {b"webhook-request-origin": origin, b"aeg-event-type": b"SubscriptionValidation"}
    for ask in (
        lambda: challenge.respond_to_headers(heads, query, (), 0, per_s=None),
        lambda: challenge.admits(heads, body, (), 0),
        lambda: challenge.respond_to_body(heads, body),
    ):
        with suppress(DeliveryRefusedError):
            ask()


async def test_a_source_without_a_handshake_answers_none() -> None:
    async with running() as ingress:
        assert (await asked(ingress, method="GET", query="challenge=abc"))[0] == 405
        assert (await asked(ingress, method="OPTIONS", headers={"WebHook-Request-Origin": "x"}))[0] == 405


@pytest.mark.parametrize(
    ("text", "token", "parameter"),
    [
        ("header:x", "", "challenge"),
        ("query:", "", "challenge"),
        ("query:a b", "", "challenge"),
        ("", "header:x", "challenge"),
        ("query:x", "query:y", "challenge_token"),
        ("eventgrid", "header:x", "challenge_token"),
        ("cloudevents", "member:x", "challenge_token"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(text: str, token: str, parameter: str) -> None:
    with pytest.raises(ParameterError) as caught:
        read_challenge(text, token)

    assert caught.value.parameter == parameter


def test_a_token_needs_a_secret_that_is_a_text() -> None:
    source = SourceSettings.model_validate(
        {
            "profile": "drx_standard",
            "environment": "sandbox",
            "secrets_dir": "/s",
            "challenge": "query:c",
            "challenge_token": "header:t",
        }
    )

    with pytest.raises(
        ConfigError, match=r"^BRIDGE_SOURCES__DRX__CHALLENGE_TOKEN: needs a scheme whose secret is a string"
    ):
        challenge_of("drx", source, scheme_of("drx", source))
