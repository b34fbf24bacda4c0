"""What is a repeat where the source signs no id: the whole body decides, and time where a state may come again."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from typing import Any, NamedTuple

import pytest

from bridge.errors import NotDurableError
from bridge.event import Identity, ParkReason
from bridge.ingress.routes import Source
from bridge.known.delivery_ids import NewestBodies, id_in_bucket_before, id_of_body
from bridge.mapping.lookup import load_profile
from bridge.proof.scheme import FixedSecrets, HmacKey, KeySlot
from bridge.proof.schemes.presets import configure
from tests.builders import a_body, a_delivery, a_slot, signed_headers
from tests.component.test_ingress import Ingress, request_bytes, running
from tests.waiting import until

SECRET = "a-secret-of-many-characters"
PUSH_HEADERS = {"content-type": "application/json", "x-webhook-secret": SECRET}
START = 1_789_398_600.0  # the beginning of a bucket
BUCKET_S = 600
PACKED = {"StoreID": "999001", "QueueID": "9000471", "Statuswf": "Packed"}
APPROVED = PACKED | {"Statuswf": "Approved"}


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
    newest: NewestBodies

    async def says(self, document: dict[str, Any]) -> str:
        return str((await pushed(self.ingress, document))[1]["outcome"])

    def reads(self, other: "Replica", *, since: int = 0) -> None:
        """Read all that another one has written, as its follower would; or only what came `since` a number."""
        for delivery, outcome in other.ingress.publisher.published[since:]:
            assert not isinstance(outcome, ParkReason)
            for event in outcome:
                identity = Identity(event.source, event.id, delivery.body_sha256)
                self.ingress.publisher.dedupe.recalled(identity, time.time())
                self.newest.recalled(identity, event.key.encode(), delivery.received_at.timestamp())


@contextlib.asynccontextmanager
async def replica(clock: Clock) -> AsyncIterator[Replica]:
    source = a_source("secret_header", "digitalrx_pharmacy", account_id="acct_1")
    newest = NewestBodies({source.name: source.bucket_s}, now=clock)
    async with running(sources=[source], now=clock, newest=newest) as ingress:
        yield Replica(ingress, newest)


NEW, REPEAT = "accepted", "duplicate"
EDGE_S = BUCKET_S - 1


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
        [(0, PACKED, NEW), (0, PACKED | {"QueueID": "9000472"}, NEW), (0, PACKED, REPEAT)],
        [(0, APPROVED, NEW), (120, APPROVED | {"LotNumber": "LOT12345"}, NEW)],
        [(0, PACKED, NEW), (1199, PACKED, REPEAT)],
        [(EDGE_S, PACKED, NEW), (1, PACKED, REPEAT)],  # across the edge of a bucket
        [(EDGE_S, PACKED, NEW), (601, PACKED, NEW)],
        [(0, PACKED, NEW), (1200, PACKED, NEW)],
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
        ids = list(event_ids(only.ingress))

    assert said == [outcome for *_, outcome in pushes]
    assert len(ids) == len(set(ids)) == said.count(NEW)


@pytest.mark.parametrize(
    ("documents", "facts"),
    [((PACKED, APPROVED, PACKED), 3), ((PACKED, APPROVED, PACKED, APPROVED, APPROVED), 4), ((PACKED, PACKED), 1)],
)
async def test_a_return_to_a_state_is_a_new_fact_also_among_what_is_taken_together(
    documents: tuple[dict[str, str], ...], facts: int
) -> None:
    """Each comes on a connection of its own, and all within one turn of the loop."""
    async with replica(Clock()) as (ingress, _):
        for document in documents:
            ingress.feed(request_bytes(json.dumps(document).encode(), PUSH_HEADERS.items()))
        await until(lambda: bool(ingress.publisher.published) and not ingress.admission.count)

    assert len(set(event_ids(ingress))) == facts
    assert json.loads(ingress.publisher.published[-1][0].body) == documents[-1]


async def test_whatever_fails_what_was_acknowledged_last_is_the_newest_fact() -> None:
    attempts = [(document, fails) for document in (PACKED, APPROVED) for fails in (False, True)]
    async with replica(Clock()) as (ingress, _):
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
    clock = Clock()
    async with replica(clock) as first, replica(clock) as second:
        said = [await first.says(PACKED)]
        second.reads(first)
        clock.now += 60
        said.append(await second.says(APPROVED))
        first.reads(second)
        clock.now += 60
        said.append(await first.says(PACKED))
        second.reads(first)
        clock.now += 60
        said += [await one.says(PACKED) for one in (first, second)]

        assert said == ["accepted", "accepted", "accepted", "duplicate", "duplicate"]
        assert len({*event_ids(first.ingress), *event_ids(second.ingress)}) == 3


@pytest.mark.parametrize("recalls", [1, 2])
async def test_a_return_to_a_state_is_a_new_fact_also_at_a_replica_whose_clock_is_behind(recalls: int) -> None:
    ahead, behind = Clock(), Clock()
    ahead.now += 1.0
    async with replica(ahead) as first, replica(behind) as second:
        said = [await first.says(PACKED)]
        second.reads(first)
        behind.now += 0.3
        said.append(await second.says(APPROVED))
        for _ in range(1, recalls):
            second.reads(first)
        behind.now += 0.3
        said.append(await second.says(PACKED))

    assert said == ["accepted", "accepted", "accepted"]


async def test_a_return_to_a_state_is_a_new_fact_also_while_only_the_spool_has_been_read() -> None:
    """Under the id that the topic has of an equal body, a drain would leave it out as a repeat."""
    clock = Clock()
    async with replica(clock) as before, replica(clock) as after:
        after.ingress.publisher.dedupe.finished = False
        said = []
        for document in (PACKED, APPROVED):  # the first is in the topic, the second in the spool
            said.append(await before.says(document))
            clock.now += 60
        after.reads(before, since=1)
        said += [await after.says(document) for document in (APPROVED, PACKED, PACKED)]

        assert said == ["accepted", "accepted", "duplicate", "accepted", "duplicate"]
        assert len({*event_ids(before.ingress), *event_ids(after.ingress)}) == 3


def test_the_memory_of_newest_bodies_is_bounded_and_ends_with_the_repeats() -> None:
    clock = Clock()
    newest = NewestBodies({"drx": BUCKET_S}, keys_max=2, now=clock)
    first = a_delivery(id="dlv_1")._replace(received_at=datetime.fromtimestamp(START, UTC))
    for key in ("a", "b", "c"):
        newest.note(first, [key])

    assert [len(newest.find("drx", [key])) for key in ("a", "b", "c")] == [0, 1, 1]
    clock.now += 2 * BUCKET_S
    newest.note(first._replace(id="dlv_2", received_at=datetime.fromtimestamp(clock.now, UTC)), ["d"])
    assert [len(newest.find("drx", [key])) for key in ("b", "c", "d")] == [0, 0, 1]


@pytest.mark.parametrize("number", ["1", "12", "2.1"])  # the last of a second table of a mapping file
def test_every_event_of_a_delivery_says_which_body_is_the_newest_of_its_key(number: str) -> None:
    newest = NewestBodies({"drx": BUCKET_S}, now=Clock())
    delivery_id = f"dlv_{'0' * 32}_2982331"

    newest.recalled(Identity("drx", f"{delivery_id}/{number}", "0" * 64), b"acme:1", START)

    assert [each.id for each in newest.find("drx", ["acme:1"])] == [delivery_id]


async def test_a_retry_across_the_edge_waits_for_the_first_attempt_and_shares_its_end() -> None:
    clock = Clock()
    clock.now += 599
    async with replica(clock) as (ingress, _):
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


def test_an_id_is_128_bits_of_the_body_and_the_bucket_of_its_receipt() -> None:
    digest = "0123456789abcdef" * 4

    assert id_of_body(digest, received_s=START, bucket_s=0) == "dlv_0123456789abcdef0123456789abcdef"
    bucketed = id_of_body(digest, received_s=START + 599.9, bucket_s=BUCKET_S)
    assert bucketed == "dlv_0123456789abcdef0123456789abcdef_2982331"
    assert id_in_bucket_before(bucketed) == id_of_body(digest, received_s=START - 0.1, bucket_s=BUCKET_S)
