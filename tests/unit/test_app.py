"""How the ingress is composed, and how its keys affect readiness."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.app import _durability_checks, patience_beside_spool, secret_checks
from bridge.ingress.call import Source
from bridge.mapping.lookup import load_profile
from bridge.proof.scheme import FixedSecrets, KeySlot, Scheme
from bridge.proof.schemes.presets import configure
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.runtime.health import judge
from bridge.settings import Settings
from bridge.spool.store import NoSpool
from tests.builders import a_slot


@pytest.mark.parametrize("after_s", [Settings().spool_after_s, 0.1, 0.5, 30.0])
def test_an_outage_is_seen_before_the_first_delivery_in_it_is_spooled(after_s: float) -> None:
    """Or the next one, of another partition, would begin to wait as well."""
    patience = patience_beside_spool(after_s)

    assert patience.stalled_s + patience.tick_s < after_s


NOW = 1_790_000_000.0
ENDED = replace(a_slot(), accept_until=NOW - 1)
TO_COME = replace(a_slot("next"), not_before=NOW + 1)
COUNTS = a_slot("other")


def a_source(name: str, *keys: KeySlot, scheme: Scheme | None = None) -> Source:
    return Source(name, "sandbox", load_profile("drx_standard"), scheme or StandardWebhooks(), FixedSecrets(keys))


CIDR = configure("cidr", {"networks": "192.0.2.0/24"}, tolerance_s=None)


@pytest.mark.parametrize(
    ("sources", "status", "results"),
    [
        # No replica has a key that this one has not, so none would be ready, and all senders were turned away.
        *(
            (
                [a_source("a", without), a_source("b", ENDED, COUNTS)],
                "degraded",
                {"secrets_a": "degraded", "secrets_b": "ok"},
            )
            for without in (ENDED, TO_COME)
        ),
        # The balancer's 503 has senders come again, and our 401 would not.
        (
            [a_source("a", ENDED), a_source("b", TO_COME, ENDED)],
            "unavailable",
            {"secrets_a": "no_active_secret", "secrets_b": "no_active_secret"},
        ),
        ([a_source("a", ENDED), a_source("b", scheme=CIDR)], "degraded", {"secrets_a": "degraded"}),
    ],
)
def test_a_source_without_a_key_takes_no_readiness_from_one_that_can_deliver(
    sources: list[Source], status: str, results: dict[str, str]
) -> None:
    assert judge(secret_checks({each.name: each for each in sources}, now=lambda: NOW)) == (
        status,
        results,
        {name: "no_active_secret" for name, result in results.items() if result == "degraded"},
    )


@pytest.mark.parametrize(
    ("change", "check", "result"),
    [
        ({}, "kafka", "ok"),
        ({"ready": False, "code": "unreachable"}, "kafka", "unreachable"),
        ({"quiet": True}, "kafka", "no_answer"),
        ({"wrong_counts": {"t": None}}, "topics", "topic_missing"),
        # Some keys would have no place, and to move them would break their order.
        ({"wrong_counts": {"t": 3}}, "topics", "too_few_partitions"),
        ({"wrong_counts": {"t": 24}}, "topics", "ok"),
    ],
)
def test_where_kafka_takes_nothing_it_is_ready_only_beside_a_spool(
    change: dict[str, Any], check: str, result: str
) -> None:
    """Nothing is written for that, so that no delivery pays for finding it out."""
    working = {"ready": True, "untried": False, "quiet": False, "code": "", "state": "ready", "wrong_counts": {}}
    producer: Any = SimpleNamespace(**working | change)
    spool: Any = SimpleNamespace(code="")
    known_ids: Any = SimpleNamespace(finished=True)

    for beside, expected in ((NoSpool(), result), (spool, result if result == "ok" else f"degraded {result}")):
        assert _durability_checks(producer, beside, known_ids, partitions=12)[check]() == expected
