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


@pytest.mark.parametrize(
    ("header", "least", "most"),
    [
        ("7", 7, 7),
        (format_datetime(NOW + timedelta(seconds=7), usegmt=True), 7, 7),
        *((header, 0, 0) for header in ("", "soon", "-3", "1e9", "٣")),
        ("9999999999999999999999", 300, 300),
    ],
)
async def test_retry_after_is_a_lower_bound_that_cannot_stop_a_sender_for_ever(
    header: str, least: float, most: float
) -> None:
    clock = Clock()
    async with receiving(answers(503, retry_after=header), ACCEPTED) as receiver:
        await deliver(receiver.url, clock=clock)

    assert least <= clock.waits[0] <= most + POLICY.delay_first_s


async def test_a_reset_and_silence_are_tried_again_until_the_last_attempt() -> None:
    released = asyncio.Event()

    async def says_nothing(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    policy = RetryPolicy(attempts=3, timeout_s=0.2)
    async with receiving(resets, says_nothing, ACCEPTED) as receiver:
        taken = await deliver(receiver.url, clock=Clock(), policy=policy)
        released.set()
    nobody = await deliver(receiver.url, clock=Clock(), policy=policy)

    assert (taken.taken, taken.retried) == (True, ("connection_error", "timeout"))
    assert (nobody.taken, nobody.reply.status, nobody.retried) == (False, 0, ("connection_error",) * 2)


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


async def played(
    sender: Sender, outgoings: Iterable[Outgoing], *, rate: float | None = None, concurrency: int
) -> list[str]:
    got: list[str] = []
    await play(sender, outgoings, rate=rate, concurrency=concurrency, on_answer=lambda answer: got.append(answer.id))
    return got
