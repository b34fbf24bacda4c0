"""Repeats of a source without signed ids: the whole body decides, and the time if a state may recur."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import replace
from hashlib import sha256
from itertools import pairwise, product
from typing import Any, NamedTuple

import pytest

from bridge.errors import NotDurableError
from bridge.event import Delivery, Identity, ParkReason
from bridge.ingress.call import Source
from bridge.kafka.record import unrecognized_key
from bridge.known.derived_ids import NewestBodies, id_of_body
from bridge.mapping.lookup import load_profile
from bridge.proof.origin import sign_origin
from bridge.proof.scheme import FixedSecrets, HmacKey, KeySlot, SharedSecret
from bridge.proof.schemes.presets import configure
from tests.builders import a_body, a_delivery, a_slot, signed_headers
from tests.component.test_ingress import Ingress, request_bytes, running
from tests.waiting import until

SECRET = "a-secret-of-many-characters"
PUSH_HEADERS = {"content-type": "application/json", "x-webhook-secret": SECRET}
START = 1_789_398_600.0
BUCKET_S = 600
PACKED = {"StoreID": "999001", "QueueID": "9000471", "Statuswf": "Packed"}
APPROVED = PACKED | {"Statuswf": "Approved"}
UNHEARD, UNSEEN = (PACKED | {"Statuswf": word} for word in ("Unheard", "Unseen"))


class Clock:
    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


def a_source(
    scheme: str, profile: str = "drx_standard", *, parameters: Mapping[str, str] | None = None, **options: str
) -> Source:
    found = load_profile(profile, options)
    built = configure(scheme, parameters or {}, tolerance_s=None)
    slots = (KeySlot("current", built.parse_key(SECRET)),)
    return Source("drx", "sandbox", found, built, FixedSecrets(slots), bucket_s=getattr(found, "BUCKET_S", 0))


async def pushed(ingress: Ingress, document: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Push as a vendor that sends its secret in a header."""
    return await ingress.post(json.dumps(document).encode(), headers=PUSH_HEADERS)


async def github(ingress: Ingress, body: bytes, delivery: str | None) -> tuple[int, dict[str, Any]]:
    """Push as a vendor whose id header no signature covers."""
    heads = {"content-type": "application/json"}
    heads["x-hub-signature-256"] = "sha256=" + HmacKey(SECRET.encode()).digest(body).hex()
    if delivery is not None:
        heads["x-github-delivery"] = delivery
    return await ingress.post(body, headers=heads)


def event_ids(ingress: Ingress) -> Iterator[str]:
    for _, outcome in ingress.publisher.published:
        assert not isinstance(outcome, ParkReason)
        yield from (event.id for event in outcome)


class Replica(NamedTuple):
    ingress: Ingress

    async def says(self, document: dict[str, Any]) -> str:
        return str((await pushed(self.ingress, document))[1]["outcome"])

    def reads(self, other: "Replica") -> None:
        """Read all that another one has written, as its reader would."""
        recalled = self.ingress.publisher.dedupe.recalled
        for delivery, outcome in other.ingress.publisher.published:
            if isinstance(outcome, ParkReason):
                parked = Identity(delivery.source, delivery.id, delivery.body_sha256, outcome.reason)
                recalled(parked, time.time(), unrecognized_key(delivery, outcome))
                continue
            for event in outcome:
                recalled(Identity(event.source, event.id, delivery.body_sha256), time.time(), event.key.encode())


class Picky:
    """DigitalRX's profile, which does not know some words."""

    BUCKET_S = BUCKET_S

    def __init__(self) -> None:
        self._profile = load_profile("digitalrx_pharmacy", {"account_id": "acct_1"})

    def map(self, delivery: Delivery, document: dict[str, Any], /) -> Any:
        if document["Statuswf"] == "Unheard":
            return ParkReason("unknown_type")
        if document["Statuswf"] == "Unseen":
            return ParkReason("unknown_type", key=f"q:999001:{document['QueueID']}")
        return self._profile.map(delivery, document)


@contextlib.asynccontextmanager
async def replica(clock: Clock) -> AsyncIterator[Replica]:
    source = replace(a_source("secret_header", "digitalrx_pharmacy", account_id="acct_1"), profile=Picky())
    async with running(sources=[source], now=clock) as ingress:
        yield Replica(ingress)


NEW, REPEAT, PARKED = "accepted", "duplicate", "parked"


@pytest.mark.parametrize(
    "pushes",
    [
        *(
            [
                (pause_s, document, outcome)
                for document, outcome in zip(
                    (PACKED, APPROVED, PACKED, PACKED, APPROVED, APPROVED, PACKED),
                    (NEW, NEW, NEW, REPEAT, NEW, REPEAT, NEW),
                    strict=True,
                )
            ]
            for pause_s in (0, 300, 599)
        ),
        [(0, PACKED, NEW), (-1, APPROVED, NEW), (-1, PACKED, NEW)],  # the clock is set back
        [(0, PACKED, NEW), (-3600, PACKED, NEW), (599, PACKED, REPEAT)],
        [(0, PACKED, NEW), (0, PACKED | {"QueueID": "9000472"}, NEW), (0, PACKED, REPEAT)],
        [(0, APPROVED, NEW), (120, APPROVED | {"LotNumber": "LOT12345"}, NEW)],
        [(0, PACKED, NEW), (599, PACKED, REPEAT), (1, PACKED, NEW)],
        # What was parked without a key may be of any prescription.
        [(0, PACKED, NEW), (1, UNHEARD | {"QueueID": "9000472"}, PARKED), (1, PACKED, NEW)],
        [(0, UNHEARD, PARKED), (1, UNHEARD, PARKED), (1, PACKED, NEW), (1, UNHEARD, PARKED), (1, PACKED, NEW)],
        [(0, UNHEARD, PARKED), (1, UNSEEN, PARKED), (1, UNHEARD, PARKED)],
        [(0, PACKED, NEW), (1, UNSEEN | {"QueueID": "9000472"}, PARKED), (1, PACKED, REPEAT)],
        [(0, PACKED, NEW), (1, UNSEEN, PARKED), (1, UNSEEN, PARKED), (1, PACKED, NEW)],
    ],
)
async def test_equal_bytes_are_a_repeat_for_a_while_and_a_return_to_a_state_is_a_new_fact(
    pushes: list[tuple[float, dict[str, Any], str]],
) -> None:
    clock = Clock()
    async with replica(clock) as only:
        said = []
        for later_s, document, _ in pushes:
            clock.now += later_s
            said.append(await only.says(document))
        kept = [delivery.id for delivery, _ in only.ingress.publisher.published]

    assert said == [outcome for *_, outcome in pushes]
    # A retry of what was parked is answered in the same way.
    retried = sum(one[1:] == other[1:] and one[2] == PARKED for one, other in pairwise(pushes))
    assert len(kept) == len(set(kept)) == len(pushes) - said.count(REPEAT) - retried


@pytest.mark.parametrize(
    ("documents", "facts"),
    [((PACKED, APPROVED, PACKED), 3), ((PACKED, APPROVED, PACKED, APPROVED, APPROVED), 4), ((PACKED, PACKED), 1)],
)
async def test_a_return_to_a_state_is_a_new_fact_also_among_what_is_taken_together(
    documents: tuple[dict[str, str], ...], facts: int
) -> None:
    """Each comes on a connection of its own, and all within one turn of the loop."""
    async with replica(Clock()) as (ingress,):
        for document in documents:
            ingress.feed(request_bytes(json.dumps(document).encode(), PUSH_HEADERS.items()))
        await until(lambda: bool(ingress.publisher.published) and not ingress.admission.count)

    assert len(set(event_ids(ingress))) == facts
    assert json.loads(ingress.publisher.published[-1][0].body) == documents[-1]


async def test_whatever_fails_what_was_acknowledged_last_is_the_newest_fact() -> None:
    attempts = [(document, fails) for document in (PACKED, APPROVED) for fails in (False, True)]
    async with replica(Clock()) as (ingress,):
        published, failures = ingress.publisher.published, ingress.publisher.failures
        for number, history in enumerate(product(attempts[:1], *[attempts] * 3)):
            for document, fails in history:
                pushed_now = document | {"QueueID": str(number)}
                failures[:] = [NotDurableError("deadline")] if fails else []
                status, _ = await pushed(ingress, pushed_now)
                assert status == 503 or json.loads(published[-1][0].body) == pushed_now, history

    ids = list(event_ids(ingress))
    assert len(ids) == len(set(ids))


async def test_a_return_to_a_state_is_a_new_fact_also_where_another_replica_took_what_was_in_between() -> None:
    """What a replica reads can only make it forget, so a repeat at the other one is a fact once more."""
    clock = Clock()
    async with replica(clock) as first, replica(clock) as second:
        said = [await first.says(PACKED)]
        second.reads(first)
        for between in (APPROVED, UNHEARD):
            clock.now += 60
            said.append(await second.says(between))
            first.reads(second)
            clock.now += 60
            said += [await first.says(PACKED), await first.says(PACKED)]
            first.reads(first)
            said.append(await first.says(PACKED))
        second.reads(first)
        clock.now += 60
        said.append(await second.says(PACKED))

        assert said == [NEW, NEW, NEW, REPEAT, REPEAT, PARKED, NEW, REPEAT, REPEAT, NEW]
        kept = [*first.ingress.publisher.published, *second.ingress.publisher.published]
        assert len({delivery.id for delivery, _ in kept}) == said.count(NEW) + said.count(PARKED)


async def test_what_an_operator_posts_is_no_newest_body() -> None:
    """Neither is a live delivery its repeat, nor a repeat of the body before, which is not the newest any more."""
    body = json.dumps(PACKED).encode()
    async with replica(Clock()) as only:
        key = SharedSecret(SECRET.encode())
        said = [await only.says(APPROVED)]
        for origin in ("replay", "import"):
            heads = sign_origin(key, f"dlv_{origin}", int(START), body, origin=origin, received_us=None)
            answer = await only.ingress.post(body, headers={"content-type": "application/json", **heads})
            said.append(answer[1]["outcome"])
        only.reads(only)
        said += [await only.says(document) for document in (APPROVED, APPROVED, PACKED, PACKED)]

    assert said == [NEW, NEW, NEW, NEW, REPEAT, NEW, REPEAT]


def test_the_memory_of_newest_bodies_is_bounded() -> None:
    newest = NewestBodies(keys_max=2)
    first = a_delivery(id="dlv_1")
    for key in ("a", "b", "c"):
        newest.note(first, [key])

    assert [newest.repeated(first, [key], within_s=1) for key in ("a", "b", "c")] == ["", "dlv_1", "dlv_1"]


def test_each_new_fact_has_an_id_of_its_own_whatever_the_clock_says() -> None:
    newest = NewestBodies()
    digest = "0123456789abcdef" * 4

    made = [newest.new_id(digest, received_s) for received_s in (START, START, START - 3600, START + 0.0005)]

    at_us = int(START * 1_000_000)
    plain = "dlv_0123456789abcdef0123456789abcdef"
    assert made == [f"{plain}_{at_us + later}" for later in (0, 1, 2, 500)]
    assert id_of_body(digest) == plain


async def test_a_retry_of_a_failed_attempt_has_its_id_and_shares_its_end() -> None:
    clock = Clock()
    clock.now += 599
    async with replica(clock) as (ingress,):
        ingress.publisher.failures.append(NotDurableError("deadline"))
        first = await pushed(ingress, PACKED)
        clock.now += 1
        second = await pushed(ingress, PACKED)
        third = await pushed(ingress, PACKED)

    assert (first[0], second[1]["outcome"], third[1]["outcome"]) == (503, "accepted", "duplicate")
    assert second[1]["id"] == third[1]["id"]


async def test_without_bucket_equal_bytes_are_a_repeat_whenever_they_come() -> None:
    clock = Clock()
    async with running(sources=[a_source("github")], now=clock) as ingress:
        first = await github(ingress, a_body(), None)
        clock.now += 5000
        second = await github(ingress, a_body(), None)

    assert first[1]["id"] == "dlv_" + sha256(a_body()).hexdigest()[:32]
    assert (first[1]["outcome"], second[1]["outcome"]) == ("accepted", "duplicate")


async def test_an_unsigned_id_with_another_body_is_another_delivery_and_its_retry_a_repeat() -> None:
    other = a_body(data_note="another")
    async with running(sources=[a_source("github")]) as ingress:
        answers = [await github(ingress, body, "d-1") for body in (a_body(), other, other, a_body())]

    said = [(answer["outcome"], answer["id"]) for _, answer in answers]
    second = f"d-1~{sha256(other).hexdigest()[:8]}"
    assert said == [("accepted", "d-1"), ("accepted", second), ("duplicate", second), ("duplicate", "d-1")]
    assert list(event_ids(ingress)) == ["d-1", second]
    assert ingress.metrics.registry.get_sample_value("drxbridge_lenient_fields_total", {"flag": "id_reused"}) == 2


async def test_an_ignored_id_makes_no_second_delivery_of_a_captured_one() -> None:
    """Body and signature are genuine, the id is the attacker's; a malformed one is refused no more."""
    async with running(sources=[a_source("github", parameters={"unsigned_id": "ignore"})]) as ingress:
        answers = [await github(ingress, a_body(), delivery) for delivery in ("d-1", "d-2", None, "x" * 201)]
        other = await github(ingress, a_body(data_note="another"), "d-1")

    assert [answer["outcome"] for _, answer in answers] == ["accepted", "duplicate", "duplicate", "duplicate"]
    assert {answer["id"] for _, answer in answers} == {"dlv_" + sha256(a_body()).hexdigest()[:32]}
    assert other[1]["outcome"] == "accepted"
    assert len(ingress.publisher.published) == 2


async def test_of_several_ids_the_signed_one_counts_in_any_order() -> None:
    """Else a captured delivery would be new under another value of the header that is not signed."""
    headers = {"header": "x-signature", "id_header": "x-id"}
    body = a_body()
    for scheme in ("body_hmac+standard_webhooks", "standard_webhooks+body_hmac"):
        built = configure(scheme, headers, tolerance_s=None)
        hmac_key, standard_key = HmacKey(SECRET.encode()), a_slot().key
        key = (hmac_key, standard_key) if scheme.startswith("body") else (standard_key, hmac_key)
        slots = FixedSecrets((KeySlot("current", key),))
        source = Source("drx", "sandbox", load_profile("drx_standard"), built, slots)
        async with running(sources=[source]) as ingress:
            heads = {**signed_headers(body), "x-signature": hmac_key.digest(body).hex()}
            answers = [await ingress.post(body, headers={**heads, "x-id": each}) for each in ("a", "b")]

        assert [(answer["outcome"], answer["id"]) for _, answer in answers] == [
            ("accepted", "evt_1"),
            ("duplicate", "evt_1"),
        ]
