"""Deliveries from operators: their signature, and their handling at the public port."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.event import Delivery, Event, ParkReason
from bridge.ingress.call import Source
from bridge.kafka.record import unrecognized_value
from bridge.mapping.lookup import load_profile
from bridge.proof.origin import sign_origin, verify_origin
from bridge.proof.scheme import FixedSecrets, KeySet, KeySlot, ProofKey, PublicKey, Raw, SharedSecret
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.proof.secrets import parse_slot
from tests.builders import SECRET, WHEN, a_body, a_slot, signed_headers
from tests.component.test_ingress import Ingress, running

NOW = 1_800_000_000
RECEIVED_US = int(WHEN.timestamp() * 1e6)


def headers(
    key: ProofKey, body: bytes, *, origin: str = "replay", at: int = NOW, delivery_id: str = "dlv_1"
) -> dict[str, str]:
    received = RECEIVED_US if origin == "replay" else None
    return sign_origin(key, delivery_id, at, body, origin=origin, received_us=received)


def raw(sent: dict[str, str], body: bytes) -> Raw:
    return Raw({name.encode(): value.encode() for name, value in sent.items()}, body)


@pytest.mark.parametrize(
    ("scheme", "parameters", "lines"),
    [
        ("standard_webhooks", {}, SECRET),
        ("github", {}, "a secret of sixteen or more"),
        ("dosespot", {}, "a secret of sixteen or more"),
        ("basic", {}, "user:a long password"),
        ("url_token", {}, "a-token-of-twenty-four-characters"),
        ("basic+github", {}, "user:a long password\nbody_hmac = a secret of sixteen or more"),
    ],
)
def test_who_has_all_secrets_of_a_delivery_can_post(scheme: str, parameters: dict[str, str], lines: str) -> None:
    configured = configure(scheme, parameters, tolerance_s=300)
    slot = parse_slot(Path("current"), lines.encode(), configured)

    sent = raw(headers(slot.key, b"{}"), b"{}")
    proof = verify_origin(configured, sent, [slot], NOW + 300)

    assert (proof.id, proof.origin, proof.slot, proof.received_s) == ("dlv_1", "replay", "current", WHEN.timestamp())
    assert proof.id_signed == (scheme == "standard_webhooks")
    configured.reads_peer = True  # as in a combination with networks, which no secret replaces
    with pytest.raises(DeliveryRefusedError, match="signature_mismatch"):
        verify_origin(configured, sent, [slot], NOW)


def test_a_first_receipt_in_the_future_counts_as_now() -> None:
    slot, tomorrow = a_slot(), NOW + 86_400
    sent = sign_origin(slot.key, "dlv_1", NOW, b"{}", origin="replay", received_us=tomorrow * 10**6)

    assert verify_origin(StandardWebhooks(), raw(sent, b"{}"), [slot], NOW).received_s == NOW


def test_the_key_of_the_slot_replay_proves_no_delivery_of_the_sender() -> None:
    slot = parse_slot(Path("replay"), SECRET.encode(), StandardWebhooks())
    sent = {name.encode(): value.encode() for name, value in signed_headers(b"{}", timestamp=NOW).items()}

    with pytest.raises(DeliveryRefusedError, match="signature_mismatch"):
        StandardWebhooks().verify(Raw(sent, b"{}"), [slot], NOW)


def changed(name: str, value: str) -> Callable[[dict[str, str]], Any]:
    return lambda sent: sent.update({name: value})


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (changed("drx-origin", "import"), "signature_mismatch"),
        (changed("drx-origin", "live"), "id_malformed"),
        (changed("drx-delivery-id", "d" * 200), "signature_mismatch"),
        (changed("drx-delivery-id", "a b"), "id_malformed"),
        (changed("drx-received", "1" * 17), "signature_mismatch"),
        (changed("drx-received", ""), "signature_mismatch"),
        (changed("drx-received", "-1"), "timestamp_malformed"),
        (changed("drx-received", "1" * 18), "timestamp_malformed"),
        (changed("drx-timestamp", str(NOW + 1)), "signature_mismatch"),
        (changed("drx-timestamp", "x"), "timestamp_malformed"),
        (changed("drx-timestamp", "1" * 13), "timestamp_malformed"),
        (changed("drx-signature", ""), "signature_mismatch"),
        (changed("drx-signature", "\u00e4"), "signature_mismatch"),
    ],
)
def test_every_part_is_covered(change: Callable[[dict[str, str]], None], code: str) -> None:
    sent = headers(a_slot().key, b"{}")
    change(sent)

    with pytest.raises(DeliveryRefusedError, match=code):
        verify_origin(StandardWebhooks(), raw(sent, b"{}"), [a_slot()], NOW)


@pytest.mark.parametrize(
    ("body", "now", "slots", "code"),
    [
        (b"[]", NOW, [a_slot()], "signature_mismatch"),
        (b"{}", NOW + 301, [a_slot()], "timestamp_stale"),
        (b"{}", NOW - 301, [a_slot()], "timestamp_future"),
        (b"{}", NOW, [a_slot(key=b"another key, as long as it must be")], "signature_mismatch"),
        (b"{}", NOW, [replace(a_slot(), accept_until=NOW - 1)], "signature_mismatch"),
        (b"{}", NOW, [], "signature_mismatch"),
        (b"{}", NOW, [replace(a_slot(), key=KeySet(()))], "signature_mismatch"),
        (b"{}", NOW, [replace(a_slot(), key=(a_slot().key, PublicKey(bytes(32))))], "signature_mismatch"),
    ],
)
def test_another_body_time_or_key_proves_nothing(body: bytes, now: int, slots: Sequence[KeySlot], code: str) -> None:
    with pytest.raises(DeliveryRefusedError, match=code):
        verify_origin(StandardWebhooks(), raw(headers(a_slot().key, b"{}"), body), slots, now)


def test_no_scheme_reads_a_header_that_an_operator_proves_a_delivery_with() -> None:
    """Each delivery with it would be taken for an operator's, and refused."""
    with pytest.raises(ConfigError, match="header"):
        configure("secret_header", {"header": "DRX-Signature"}, tolerance_s=300)


async def post(ingress: Ingress, body: bytes, *, key: ProofKey, **what: Any) -> tuple[int, dict[str, Any]]:
    at = int(datetime.now(UTC).timestamp())
    return await ingress.post(body, headers={"content-type": "application/json", **headers(key, body, at=at, **what)})


class Mending:
    """A profile that does not know a body until it is mended."""

    def __init__(self) -> None:
        self.mended = False
        self._profile = load_profile("digitalrx_pharmacy", {"account_id": "acct_1"})

    def map(self, delivery: Delivery, document: dict[str, object], /) -> Any:
        return self._profile.map(delivery, document) if self.mended else ParkReason("unknown_type")


async def test_what_was_parked_becomes_an_event_of_its_first_receipt_and_does_so_once() -> None:
    profile, body = Mending(), b'{"QueueID":"1","Statuswf":"Packed"}'
    scheme = configure("secret_header", {}, tolerance_s=300)
    slot = KeySlot("current", SharedSecret(b"a secret of sixteen or more"))
    source = Source("drx", "sandbox", profile, scheme, FixedSecrets((slot,)), bucket_s=600)
    live = {"content-type": "application/json", "x-webhook-secret": "a secret of sixteen or more"}
    async with running(sources=[source]) as ingress:
        await ingress.post(body, headers=live)
        ((parked, _),) = ingress.publisher.published
        still = await post(ingress, body, key=slot.key, delivery_id=parked.id)
        await post(ingress, body, key=slot.key, delivery_id="dlv_forgotten")
        profile.mended = True
        answers = [await post(ingress, body, key=slot.key, delivery_id=parked.id) for _ in range(2)]
        # The sender may be silent all the same.
        assert ingress.metrics.source_last_event.labels("drx")._value.get() == 0

    assert still[1] == {"outcome": "parked", "id": parked.id, "reason": "unknown_type"}
    assert [answer["outcome"] for _, answer in answers] == ["accepted", "duplicate"]
    again, reason = ingress.publisher.published[1]
    assert isinstance(reason, ParkReason)
    assert (unrecognized_value(again, reason)["received_at"], again.received_at > WHEN) == (WHEN, True)
    replayed, outcome = ingress.publisher.published[2]
    assert not isinstance(outcome, ParkReason)
    (event,) = outcome
    assert isinstance(event, Event)
    assert event.id.startswith(f"{parked.id}/")
    assert (event.occurred_at, event.received_at, event.value["received_at"]) == (WHEN, WHEN, WHEN)
    assert (replayed.origin, replayed.received_at > WHEN) == ("replay", True)


async def test_a_sender_cannot_say_that_a_delivery_is_no_news() -> None:
    async with running() as ingress:
        await ingress.post(headers=signed_headers(a_body()) | {"drx-origin": "import", "drx-delivery-id": "x"})

    ((delivery, _),) = ingress.publisher.published
    assert (delivery.origin, delivery.id) == ("", "evt_1")
