"""The simulator against a small real server that answers by script."""

import asyncio
import base64
import hashlib
import hmac
import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import aiohttp
import pytest
from aiohttp import web

from bridge.dev.signing import standard_headers
from bridge.dev.simulator import Answer, RetryPolicy, Sender, play
from bridge.dev.story import Outgoing
from tests.receiver import Seen, answers, receiving, resets

KEY = b"the quick brown fox jumps"
NOW = datetime(2026, 9, 14, 15, 0, tzinfo=UTC)
POLICY = RetryPolicy(attempts=4, timeout_s=5.0, delay_first_s=0.5, delay_max_s=30.0)

ACCEPTED = answers(200, {"outcome": "accepted", "id": "evt_1"})


@dataclass
class Clock:
    """Time that moves only when somebody waits."""

    now: datetime = NOW
    waits: list[float] = field(default_factory=list)

    async def sleep(self, delay_s: float) -> None:
        """Let the time pass at once."""
        self.waits.append(delay_s)
        self.now += timedelta(seconds=delay_s)


@asynccontextmanager
async def a_sender(url: str, *, clock: Clock, policy: RetryPolicy = POLICY) -> AsyncIterator[Sender]:
    async with aiohttp.ClientSession() as session:
        yield Sender(
            session=session,
            url=url,
            sign=lambda webhook_id, timestamp, body: standard_headers(webhook_id, timestamp, body, key=KEY),
            policy=policy,
            rng=random.Random(1),  # noqa: S311 - jitter
            sleep=clock.sleep,
            now=lambda: clock.now,
        )


async def deliver(url: str, *, clock: Clock, policy: RetryPolicy = POLICY) -> Answer:
    async with a_sender(url, clock=clock, policy=policy) as sender:
        return await sender.deliver(Outgoing("evt_1", b'{"id": "evt_1"}'))


async def test_a_delivery_is_signed_as_standard_webhooks_says() -> None:
    async with receiving(ACCEPTED) as receiver:
        answer = await deliver(receiver.url, clock=Clock())

    assert (answer.reply.status, answer.reply.outcome, answer.retried) == (200, "accepted", ())
    (seen,) = receiver.seen
    text = b"evt_1.%d." % int(NOW.timestamp()) + b'{"id": "evt_1"}'
    digest = base64.b64encode(hmac.digest(KEY, text, hashlib.sha256)).decode()
    assert seen == Seen("evt_1", int(NOW.timestamp()), f"v1,{digest}", b'{"id": "evt_1"}')


async def test_a_retry_has_the_same_id_and_body_and_a_fresh_timestamp() -> None:
    clock = Clock()
    async with receiving(answers(503, retry_after="7"), ACCEPTED) as receiver:
        answer = await deliver(receiver.url, clock=clock)

    first, second = receiver.seen
    assert (first.id, first.body) == (second.id, second.body)
    assert second.timestamp >= first.timestamp + 7
    assert second.signature != first.signature
    assert answer.retried == ("503",)


@pytest.mark.parametrize("header", ["7", format_datetime(NOW + timedelta(seconds=7), usegmt=True)])
async def test_retry_after_is_a_lower_bound_in_both_of_its_forms(header: str) -> None:
    clock = Clock()
    async with receiving(answers(429, retry_after=header), ACCEPTED) as receiver:
        await deliver(receiver.url, clock=clock)

    assert 7 <= clock.waits[0] <= 7 + POLICY.delay_first_s


@pytest.mark.parametrize("header", ["", "soon", "-3", "9999999999999999999999", "1e9", "٣"])
async def test_no_retry_after_can_stop_a_sender_for_ever(header: str) -> None:
    clock = Clock()
    async with receiving(answers(503, retry_after=header), ACCEPTED) as receiver:
        await deliver(receiver.url, clock=clock)

    assert 0 <= clock.waits[0] <= 300 + POLICY.delay_first_s


async def test_a_reset_connection_is_tried_again() -> None:
    async with receiving(resets, ACCEPTED) as receiver:
        answer = await deliver(receiver.url, clock=Clock())

    assert answer.taken
    assert answer.retried == ("connection_error",)


async def test_silence_is_tried_again_after_the_timeout() -> None:
    released = asyncio.Event()

    async def says_nothing(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    async with receiving(says_nothing, ACCEPTED) as receiver:
        answer = await deliver(receiver.url, clock=Clock(), policy=RetryPolicy(timeout_s=0.2))
        released.set()

    assert answer.taken
    assert answer.retried == ("timeout",)


async def test_nobody_listening_ends_after_the_last_attempt() -> None:
    async with receiving(ACCEPTED) as receiver:
        url = receiver.url
    clock = Clock()

    answer = await deliver(url, clock=clock)

    assert (answer.reply.status, answer.reply.outcome, answer.taken) == (0, "connection_error", False)
    assert len(clock.waits) == POLICY.attempts - 1


@pytest.mark.parametrize("status", [301, 400, 401, 413, 415])
async def test_a_refusal_is_not_tried_again_nor_a_redirect_followed(status: int) -> None:
    refused = answers(status, {"outcome": "refused", "code": "signature_mismatch"}, location="/elsewhere")
    async with receiving(refused) as receiver:
        answer = await deliver(receiver.url, clock=Clock())

    assert (answer.reply.status, answer.reply.reason, answer.taken) == (status, "signature_mismatch", False)
    assert len(receiver.seen) == 1


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"outcome": 7}', b"\xff"])
async def test_an_answer_that_is_not_the_bridges_is_still_an_answer(body: bytes) -> None:
    async def act(_: web.Request) -> web.StreamResponse:
        return web.Response(status=200, body=body)

    async with receiving(act) as receiver:
        answer = await deliver(receiver.url, clock=Clock())

    assert answer.taken
    assert answer.reply.outcome in {"", "7"}


async def test_waits_grow_and_stay_bounded() -> None:
    rng = random.Random(3)  # noqa: S311 - jitter

    longest = [max(POLICY.delay_s(attempt, retry_after_s=0, rng=rng) for _ in range(200)) for attempt in range(1, 12)]

    assert all(wait <= min(30.0, 0.5 * 2**number) for number, wait in enumerate(longest))
    assert longest == sorted(longest[:7]) + longest[7:]
    assert longest[-1] > 25


async def test_one_at_a_time_keeps_the_order_even_through_retries() -> None:
    async with (
        receiving(answers(503), ACCEPTED) as receiver,
        a_sender(receiver.url, clock=Clock()) as sender,
    ):
        got = await played(sender, [Outgoing(f"evt_{n}", b"{}") for n in range(5)], concurrency=1)

    assert got == [f"evt_{n}" for n in range(5)]
    assert [seen.id for seen in receiver.seen] == ["evt_0", *got]


async def test_a_slow_answer_holds_up_no_later_delivery() -> None:
    """Open loop: the first answer comes only after the last delivery has been seen."""
    last_seen = asyncio.Event()

    async def waits_for_the_last(_: web.Request) -> web.StreamResponse:
        await last_seen.wait()
        return web.json_response({"outcome": "accepted"})

    async def is_the_last(_: web.Request) -> web.StreamResponse:
        last_seen.set()
        return web.json_response({"outcome": "accepted"})

    async with (
        receiving(waits_for_the_last, is_the_last) as receiver,
        a_sender(receiver.url, clock=Clock()) as sender,
    ):
        got = await played(sender, [Outgoing("evt_a", b"{}"), Outgoing("evt_b", b"{}")], rate=1000.0, concurrency=2)

    assert sorted(got) == ["evt_a", "evt_b"]


async def test_never_more_deliveries_at_one_time_than_allowed() -> None:
    now, most = 0, 0

    async def counts(_: web.Request) -> web.StreamResponse:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return web.json_response({"outcome": "accepted"})

    async with receiving(counts) as receiver, a_sender(receiver.url, clock=Clock()) as sender:
        got = await played(sender, [Outgoing(f"evt_{n}", b"{}") for n in range(20)], concurrency=3)

    assert len(got) == 20
    assert most <= 3


async def played(
    sender: Sender, outgoings: Iterable[Outgoing], *, rate: float | None = None, concurrency: int
) -> list[str]:
    got: list[str] = []
    await play(sender, outgoings, rate=rate, concurrency=concurrency, on_answer=lambda answer: got.append(answer.id))
    return got
