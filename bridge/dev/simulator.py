"""A DRx on the wire: signs each delivery, pushes it over HTTP and retries like a real sender."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from urllib.parse import urlsplit, urlunsplit

import aiohttp
import orjson

from bridge.dev.signing import Sign
from bridge.dev.story import Outgoing
from bridge.errors import ConfigError
from bridge.runtime.backoff import backoff_s

# Longest `Retry-After` that is waited for; beyond it the sender gives up.
RETRY_AFTER_MAX_S = 300.0
# The bridge answers in a few hundred bytes; more is somebody else's server.
ANSWER_MAX_BYTES = 65_536

Sleep = Callable[[float], Awaitable[None]]
PATH = "/webhooks/"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How stubborn a sender is; exponential with full jitter, as the Standard Webhooks guidelines advise.

    Attributes:
        attempts: Most attempts for one delivery, the first included.
        timeout_s: An attempt without an answer after this time has failed.
        delay_first_s: Longest wait before the second attempt; doubles from there.
        delay_max_s: Longest wait that is not asked for by `Retry-After`.
    """

    attempts: int = 8
    timeout_s: float = 15.0
    delay_first_s: float = 0.5
    delay_max_s: float = 30.0

    def delay_s(self, attempt: int, *, retry_after_s: float, rng: random.Random) -> float:
        """Say how long to wait after the failure of `attempt`; never less than the receiver asked for."""
        own_s = backoff_s(attempt, first_s=self.delay_first_s, max_s=self.delay_max_s, least_s=0.0, spread=rng.uniform)
        return min(retry_after_s, RETRY_AFTER_MAX_S) + own_s


@dataclass(frozen=True, slots=True)
class Reply:
    """The result of one attempt; `status` is 0 without an answer, and `outcome` has the reason."""

    status: int
    outcome: str
    reason: str
    latency_s: float
    retry_after_s: float = 0.0
    field: str = ""

    @property
    def retriable(self) -> bool:
        """True when a sender tries again: no answer, too many, or the receiver's own fault."""
        return self.status in {0, HTTPStatus.TOO_MANY_REQUESTS} or self.status >= HTTPStatus.INTERNAL_SERVER_ERROR


@dataclass(frozen=True, slots=True)
class Answer:
    """How one delivery ended.

    Attributes:
        id: Webhook id.
        reply: To the last attempt.
        retried: Why each attempt before it was repeated: a status, or why there was none.
        headers: Sent with the last attempt.
    """

    id: str
    reply: Reply
    retried: tuple[str, ...]
    headers: Mapping[str, str]

    @property
    def taken(self) -> bool:
        """True for 2xx: the sender may forget the delivery."""
        return HTTPStatus.OK <= self.reply.status < HTTPStatus.MULTIPLE_CHOICES


class Sender:
    """Delivers until it is answered, refused for good, or out of attempts.

    Args:
        session: Open client session; its owner closes it.
        url: Address of the webhook.
        sign: Webhook id, unix time and body of an attempt to the headers that prove it.
        content_type: Of the bodies.
        policy: How often and how fast it tries again.
        rng: Source of the jitter.
        sleep: Waits between attempts.
        now: Current time, aware UTC.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession,
        url: str,
        sign: Sign,
        policy: RetryPolicy,
        rng: random.Random,
        content_type: str = "application/json",
        sleep: Sleep = asyncio.sleep,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._url = url
        self._sign = sign
        self._content_type = content_type
        self._policy = policy
        self._rng = rng
        self._sleep = sleep
        self._now = now

    async def deliver(self, outgoing: Outgoing) -> Answer:
        """Make one delivery: the same id on every attempt, a fresh timestamp on each."""
        retried: list[str] = []
        while True:
            headers = self._headers(outgoing)
            reply = await self._attempt(outgoing, headers)
            if not reply.retriable or len(retried) + 1 >= self._policy.attempts:
                return Answer(outgoing.id, reply, tuple(retried), headers)
            retried.append(str(reply.status or reply.outcome))
            await self._sleep(self._policy.delay_s(len(retried), retry_after_s=reply.retry_after_s, rng=self._rng))

    def _headers(self, outgoing: Outgoing) -> dict[str, str]:
        timestamp = int(self._now().timestamp())
        return {"content-type": self._content_type, **self._sign(outgoing.id, timestamp, outgoing.body)}

    async def _attempt(self, outgoing: Outgoing, headers: Mapping[str, str]) -> Reply:
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            async with (
                asyncio.timeout(self._policy.timeout_s),
                self._session.post(self._url, data=outgoing.body, headers=headers, allow_redirects=False) as response,
            ):
                outcome, reason, field = _words(await response.content.read(ANSWER_MAX_BYTES))
                wait_s = _retry_after_s(response.headers.get("retry-after", ""), now=self._now())
                return Reply(response.status, outcome, reason, loop.time() - started, wait_s, field)
        except TimeoutError:
            return Reply(0, "timeout", "", loop.time() - started)
        except (aiohttp.ClientError, OSError):
            return Reply(0, "connection_error", "", loop.time() - started)


async def play(
    sender: Sender,
    outgoings: Iterable[Outgoing],
    *,
    rate: float | None,
    concurrency: int,
    on_answer: Callable[[Answer], None],
) -> float:
    """Make all deliveries and say by how many seconds the latest one started behind its schedule.

    With a `rate` the schedule is fixed beforehand (open loop): a slow answer delays no later delivery until
    `concurrency` of them are under way. Without one, only `concurrency` limits them; 1 keeps their order.
    """
    loop = asyncio.get_running_loop()
    free = asyncio.Semaphore(concurrency)
    started = loop.time()
    behind_s = 0.0

    async def run(outgoing: Outgoing) -> None:
        try:
            on_answer(await sender.deliver(outgoing))
        finally:
            free.release()

    async with asyncio.TaskGroup() as group:
        for number, outgoing in enumerate(outgoings):
            if rate is not None:
                await asyncio.sleep(started + number / rate - loop.time())
            await free.acquire()
            if rate is not None:
                behind_s = max(behind_s, loop.time() - started - number / rate)
            group.create_task(run(outgoing))
    return behind_s


def _words(body: bytes) -> tuple[str, str, str]:
    """Take `outcome`, `reason` (or `code`) and `field` from an answer of the bridge; empty for anybody else's."""
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", "", ""
    if not isinstance(answer, dict):
        return "", "", ""
    reason = answer.get("reason") or answer.get("code")
    return str(answer.get("outcome") or ""), str(reason or ""), str(answer.get("field") or "")


def _retry_after_s(header: str, *, now: datetime) -> float:
    """Read `Retry-After`, seconds or a date (RFC 9110, 10.2.3); 0 for anything else."""
    if header.isascii() and header.isdigit():
        return min(float(header[:9]), RETRY_AFTER_MAX_S)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (TypeError, ValueError):
        return 0.0


def webhook_url(url: str, source: str = "drx") -> str:
    """Complete an address of the bridge to the webhook of a source, unless it has a path.

    Raises:
        ConfigError: No http or https address.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port):
            return urlunsplit(parts._replace(path=PATH + source if parts.path in {"", "/"} else parts.path))
    msg = f"--url: {url!r} is no http:// or https:// address"
    raise ConfigError(msg)
