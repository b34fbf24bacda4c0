"""The number of accepted deliveries, and the time of the next; with a controlled clock."""

import random

import pytest

from bridge.ingress.delivery_limits import AddressLimit, RateLimit
from bridge.proof.schemes.network import networks
from bridge.sources import rate_limit


def test_a_burst_passes_and_then_as_many_as_the_rate_allows() -> None:
    limit = RateLimit(per_s=10, burst=3)

    at_once = [limit.wait_s("a", 100.0) for _ in range(5)]

    assert at_once[:3] == [0.0, 0.0, 0.0]
    assert at_once[3:] == [pytest.approx(0.1)] * 2  # what is refused counts for nothing
    assert limit.wait_s("a", 100.05) == pytest.approx(0.05)
    assert limit.wait_s("a", 100.1) == 0.0
    assert limit.wait_s("a", 100.1) > 0


def test_a_key_that_was_idle_may_send_no_larger_burst() -> None:
    limit = RateLimit(per_s=10, burst=3)
    limit.wait_s("a", 0.0)

    assert [limit.wait_s("a", 1000.0) == 0.0 for _ in range(4)] == [True, True, True, False]


def test_who_waits_as_long_as_it_was_told_passes() -> None:
    rng = random.Random(1)  # noqa: S311 - a seed is replayed
    limit = RateLimit(per_s=7.3, burst=4)
    now = 1_000_000.0

    for _ in range(2000):
        wait_s = limit.wait_s("a", now)
        if wait_s:
            now += wait_s
            assert limit.wait_s("a", now) == 0.0
        now += rng.random() * 0.2


def test_keys_do_not_share_a_limit_and_their_number_is_bounded() -> None:
    limit = RateLimit(per_s=1, burst=1, keys_max=3)

    assert [limit.wait_s(key, 0.0) for key in "abc"] == [0.0] * 3
    assert limit.wait_s("a", 0.0) > 0
    assert limit.wait_s("d", 0.0) == 0.0  # takes the place of the one that was least recently seen
    assert len(limit._due) == 3
    assert limit.wait_s("c", 0.0) > 0
    assert limit.wait_s("a", 0.0) == 0.0


@pytest.mark.parametrize(
    ("proxies", "seen"),
    [
        (
            "",
            [
                *(("2001:db8::1", b"", True), ("2001:db8::ffff", b"", False), ("2001:db8:0:1::1", b"", True)),
                *(("192.0.2.1", b"", True), ("::ffff:192.0.2.1", b"", False), ("192.0.2.2", b"", True)),
            ],
        ),
        (
            "10.0.0.0/8",
            [
                *(("10.0.0.1", b"192.0.2.1", True), ("10.0.0.2", b"192.0.2.9, 192.0.2.1", False)),
                ("10.0.0.1", b"192.0.2.2", True),
                # No proxy, so its word counts for nothing.
                *(("192.0.2.3", b"192.0.2.4", True), ("192.0.2.3", b"192.0.2.5", False)),
                # Hops that a client made up stand before the one that the proxy has added.
                *(("10.0.0.3", b"192.0.2.6, " * 40 + b"192.0.2.%d" % last, True) for last in (7, 8)),
            ],
        ),
    ],
    ids=["networks of version 6", "what a trusted proxy says"],
)
def test_an_address_has_a_limit(proxies: str, seen: list[tuple[str, bytes, bool]]) -> None:
    limit = AddressLimit(RateLimit(per_s=1, burst=1), proxies=networks(proxies) if proxies else ())

    assert [limit.wait_s(peer, forwarded, 0.0) == 0.0 for peer, forwarded, _ in seen] == [passes for *_, passes in seen]


def test_a_limit_lets_a_second_s_deliveries_come_at_once() -> None:
    limit = rate_limit(2.5)
    assert limit is not None
    assert [limit.wait_s("a", 0.0) == 0.0 for _ in range(4)] == [True, True, True, False]
    slow = rate_limit(0.1)
    assert slow is not None
    assert slow.wait_s("a", 0.0) == 0.0
    assert slow.wait_s("a", 0.0) == pytest.approx(10)
