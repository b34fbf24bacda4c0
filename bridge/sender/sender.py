"""A webhook sender: signs each delivery, posts it and retries as real senders do."""

import asyncio
import random
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, NamedTuple
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from bridge.errors import ConfigError
from bridge.runtime.backoff import backoff_s
from bridge.sender.signing import Sign

# Seconds; for a longer `Retry-After` the sender stops.
RETRY_AFTER_MAX_S = 300.0
# Bytes of a response to read; the bridge's have a few hundred.
RESPONSE_MAX_BYTES = 65_536
# Deliveries read ahead while they wait for their keys: an export may have a prescription on consecutive lines.
AHEAD_BYTES = 64 * 1024 * 1024
TASK_BYTES = 4096  # bytes of each besides its body

PATH = "/webhooks/"


class Post(NamedTuple):
    """A delivery to make; deliveries that share a key are made one after another."""

    id: str
    body: bytes  # exact bytes
    keys: Collection[str] = ()  # record keys of its events
    name: Mapping[str, Any] = MappingProxyType({})  # its fields in a report
    received_us: int | None = None  # Unix microseconds of its first receipt; None for a first delivery


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When to retry; exponential back-off with full jitter, as the Standard Webhooks guidelines recommend."""

    attempts: int = 8  # maximum attempts for one delivery, including the first
    timeout_s: float = 15.0  # an attempt without a response after this time has failed
    delay_first_s: float = 0.5  # maximum wait before the second attempt; then doubled
    delay_max_s: float = 30.0  # maximum wait, unless `Retry-After` asks for more

    def delay_s(self, attempt: int, *, retry_after_s: float, rng: random.Random) -> float:
        """Return the seconds to wait after the failure of `attempt`, at least `retry_after_s`."""
        own_s = backoff_s(attempt, first_s=self.delay_first_s, max_s=self.delay_max_s, least_s=0.0, spread=rng.uniform)
        return min(retry_after_s, RETRY_AFTER_MAX_S) + own_s


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of one attempt; without a response, `status` is 0 and `outcome` the reason."""

    status: int
    outcome: str
    latency_s: float
    reason: str = ""
    field: str = ""
    retry_after_s: float = 0.0

    @property
    def retriable(self) -> bool:
        """True if a sender retries: no response, 429, or 5xx."""
        return self.status in {0, HTTPStatus.TOO_MANY_REQUESTS} or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR

    @property
    def taken(self) -> bool:
        """True for 2xx: the sender may forget the delivery."""
        return HTTPStatus.OK <= self.status < HTTPStatus.MULTIPLE_CHOICES

    def __str__(self) -> str:
        return " ".join(filter(None, (str(self.status or "no response"), self.outcome, self.reason)))


class Delivered(NamedTuple):
    """The end of a delivery: last reply, reasons of earlier retries, and the last headers sent."""

    id: str
    reply: Reply
    retried: tuple[str, ...]
    headers: Mapping[str, str]


@dataclass(kw_only=True, eq=False, repr=False)
class Sender:
    """Delivers until accepted, permanently refused, or out of attempts; the caller closes `session`."""

    session: aiohttp.ClientSession
    url: str
    sign: Sign
    policy: RetryPolicy
    rng: random.Random
    content_type: str = "application/json"

    async def deliver(self, post: Post) -> Delivered:
        """Make one delivery, with the same id and a new timestamp on every attempt."""
        retried: list[str] = []
        while True:
            timestamp = int(time.time())
            headers = {"content-type": self.content_type, **self.sign(post.id, timestamp, post.body)}
            reply = await self._attempt(post.body, headers)
            if not reply.retriable or len(retried) + 1 >= self.policy.attempts:
                return Delivered(post.id, reply, tuple(retried), headers)
            retried.append(str(reply.status or reply.outcome))
            await asyncio.sleep(self.policy.delay_s(len(retried), retry_after_s=reply.retry_after_s, rng=self.rng))

    async def _attempt(self, body: bytes, headers: Mapping[str, str]) -> Reply:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with (
                asyncio.timeout(self.policy.timeout_s),
                self.session.post(self.url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                outcome, reason, field = _words(await response.content.read(RESPONSE_MAX_BYTES))
                wait_s = _retry_after_s(response.headers.get("retry-after", ""))
                return Reply(response.status, outcome, loop.time() - started, reason, field, wait_s)
        except TimeoutError:
            return Reply(0, "timeout", loop.time() - started)
        except (aiohttp.ClientError, OSError):
            return Reply(0, "connection_error", loop.time() - started)


def content_type_of(name: str, default: str = "application/json") -> str:
    """Return the content type for a file name."""
    return "application/xml" if name.lower().endswith(".xml") else default


def open_session() -> aiohttp.ClientSession:
    """Open a client session for senders: no timeout, since attempts have their own, and no cookies."""
    return aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), cookie_jar=aiohttp.DummyCookieJar())


async def play(
    posts: AsyncIterable[Post], deliver: Callable[[Post], Awaitable[None]], *, rate: float | None, concurrency: int
) -> float:
    """Make all deliveries; return the largest delay, in seconds, behind the schedule.

    With a `rate`, the schedule is fixed (open loop): a slow response does not delay later deliveries until
    `concurrency` of them are in flight. Without it, only `concurrency` limits them; 1 keeps their order.
    """
    loop = asyncio.get_running_loop()
    under_way, room, held = asyncio.Semaphore(concurrency), asyncio.Event(), 0
    last = dict[str, asyncio.Task[None]]()
    started, number, behind_s = loop.time(), 0, 0.0

    async def run(post: Post, before: Collection[asyncio.Task[None]], due: float) -> None:
        nonlocal behind_s, held
        try:
            if before:
                await asyncio.wait(before)
            async with under_way:
                behind_s = max(behind_s, loop.time() - due)
                await deliver(post)
        finally:
            held -= len(post.body) + TASK_BYTES
            room.set()
            for key in post.keys:
                if last.get(key) is asyncio.current_task():
                    del last[key]

    async with asyncio.TaskGroup() as group:
        async for post in posts:
            due = loop.time() if rate is None else started + number / rate
            await asyncio.sleep(due - loop.time())
            while held > AHEAD_BYTES:
                room.clear()
                await room.wait()
            held += len(post.body) + TASK_BYTES
            number += 1
            task = group.create_task(run(post, {last[key] for key in post.keys if key in last}, due))
            last |= dict.fromkeys(post.keys, task)
    return 0.0 if rate is None else behind_s


def _words(body: bytes) -> tuple[str, str, str]:
    """Return `outcome`, `reason` (or `code`) and `field` of the bridge's response; empty for other servers."""
    with suppress(orjson.JSONDecodeError, AttributeError):  # also for JSON that is not an object
        response = orjson.loads(body)
        reason = response.get("reason") or response.get("code")
        return str(response.get("outcome") or ""), str(reason or ""), str(response.get("field") or "")
    return "", "", ""


def _retry_after_s(header: str) -> float:
    """Read `Retry-After`, seconds or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), RETRY_AFTER_MAX_S)
    try:
        return max(0.0, (parsedate_to_datetime(header) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def webhook_url(url: str, source: str = "drx") -> str:
    """Add the webhook path of a source to a URL of the bridge that has no path."""
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port):
            return urlunsplit(parts._replace(path=PATH + source if parts.path in {"", "/"} else parts.path))
    raise ConfigError(f"--url: {url!r} is not an http:// or https:// URL")
