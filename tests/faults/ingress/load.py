"""Senders that keep the order of each prescription, some of which retry, and a few illegitimate ones."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from math import inf
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson

from tests.faults.ingress.clock import SEEN_S
from tests.faults.ingress.keys import Keys
from tests.faults.ingress.ledger import Attempt, Delivery, Kind, Ledger
from tests.faults.ingress.traffic import Prescription, Prescriptions

# Timeout of a request, far above the bridge's deadline.
SILENT_S = 30.0
# Between two attempts, doubling up to the most; shorter than `Retry-After` asks for, so that more of them fall into a
# fault.
RETRY_FIRST_S, RETRY_MAX_S = 0.5, 4.0
# Statuses of a balancer for a replica that did not respond; the bridge uses neither.
GATEWAY = {502, 504}
# Responses after which a sender may retry.
AGAIN = {0, 429, 503}
# Time limit for the last retries after the end of the load.
PATIENCE_S = 180.0
# How old a stale delivery is: beyond any tolerance that a source can be given in earnest.
STALE_S = 3_600
# Share of the deliveries that are followed by a copy, a replay, one that is no event, and one that is forged or stale.
MISCHIEF: Mapping[Kind, float] = {"duplicate": 0.02, "replayed": 0.01, "unusable": 0.01, "forged": 0.01, "stale": 0.01}
# Maximum age of a signature before its request.
SIGNED_S = 1.0
# Most deliveries under way, below the bound of connections of the ingress (2,048); beyond it none is begun.
# Without a bound each outage ends in a storm of retries that keeps the sender itself busy.
UNDER_WAY_MAX = 1_500
# Share of the deliveries whose sender first hangs up, so soon that it may or may not have been heard.
HANG_UPS, HANG_UP_S = 0.02, 0.004


class Load:
    def __init__(
        self, url: str, keys: Keys, ledger: Ledger, prescriptions: Prescriptions, *, rng: random.Random
    ) -> None:
        self._url, self._keys = url, keys
        self._ledger, self.prescriptions = ledger, prescriptions
        self._rng = rng
        self._ended = asyncio.Event()
        self._session: aiohttp.ClientSession | None = None
        self._hang_ups = HANG_UPS
        self._ahead_s, self._stepped_at = 0.0, -inf

    def step(self, ahead_s: float) -> None:
        """Let every sender's clock run `ahead_s` seconds ahead (behind, if negative) from now on."""
        self._ahead_s, self._stepped_at = ahead_s, time.monotonic()

    @property
    def now(self) -> int:
        return int(time.time() + self._ahead_s)

    @asynccontextmanager
    async def poisson(self, rate: float) -> AsyncIterator[None]:
        """Send about `rate` deliveries a second while the block runs, then wait for those under way.

        An open loop up to `UNDER_WAY_MAX`: a late answer delays only the next delivery of the same prescription.
        """
        self._ended.clear()
        running = asyncio.create_task(self._poisson(rate))
        try:
            yield
        except BaseException:
            running.cancel()
            await asyncio.wait({running})
            raise
        self._ended.set()
        async with asyncio.timeout(PATIENCE_S):
            await running

    @contextmanager
    def going_to(self, address: str) -> Iterator[None]:
        """Deliver to another address for the block, without hang-ups: each failure is the bridge's."""
        url, hang_ups = self._url, self._hang_ups
        self._url = address + urlsplit(url).path
        self._hang_ups = 0.0
        try:
            yield
        finally:
            self._url, self._hang_ups = url, hang_ups

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open connections for the block; inside another such block, use its connections."""
        if self._session is not None:
            yield
            return
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            self._session = session
            try:
                yield
            finally:
                self._session = None

    async def probe(self) -> Attempt:
        return await self.attempt(self.prescriptions.new().deliveries[0], "genuine")

    async def deliver(
        self, delivery: Delivery, *, stubborn: bool, kind: Kind = "genuine", headers: Mapping[str, str] | None = None
    ) -> None:
        """Make a delivery, retrying for a stubborn sender; only the first attempt has the given `headers`."""
        delay_s = RETRY_FIRST_S
        while True:
            attempt = await self.attempt(delivery, kind, headers)
            if not stubborn or attempt.promised or not (attempt.status in AGAIN or attempt.stepped):
                return
            await asyncio.sleep(self._rng.uniform(delay_s / 2, delay_s))
            headers, delay_s = None, min(RETRY_MAX_S, 2 * delay_s)

    async def attempt(
        self, delivery: Delivery, kind: Kind, headers: Mapping[str, str] | None = None, *, within_s: float = SILENT_S
    ) -> Attempt:
        """Make one request, signed now unless `headers` are given; hang up without a response in time."""
        sign = self._keys.forge if kind == "forged" else self._keys.sign
        at = self.now - (STALE_S if kind == "stale" else 0)
        sent = sign(delivery.id, at, delivery.body) if headers is None else headers
        attempt = Attempt(delivery, kind, time.monotonic())
        self._ledger.attempts.append(attempt)
        try:
            await self._exchange(attempt, sent, aiohttp.ClientTimeout(total=within_s))
        finally:
            attempt.ended_at = time.monotonic()
        attempt.stepped = self._stepped_at > attempt.sent_at - SIGNED_S - SEEN_S
        return attempt

    async def _exchange(self, attempt: Attempt, headers: Mapping[str, str], patience: aiohttp.ClientTimeout) -> None:
        assert self._session is not None
        body = attempt.delivery.body
        try:
            async with self._session.post(self._url, data=body, headers=headers, timeout=patience) as answer:
                body = await answer.read()
                if answer.status in GATEWAY:
                    return
                attempt.status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as exc:
            attempt.reason = type(exc).__name__
            return
        attempt.answered_at = time.monotonic()
        attempt.outcome, attempt.reason = _words(body)
        if self.prescriptions.mark.encode() in body or self.prescriptions.key_mark.encode() in body:
            self._ledger.leaks.append(f"answer {attempt.status} to {attempt.kind} {attempt.delivery.id}")

    async def _poisson(self, rate: float) -> None:
        loop = asyncio.get_running_loop()
        due = loop.time()
        under_way: set[asyncio.Task[None]] = set()
        async with self.open(), asyncio.TaskGroup() as group:
            while not self._ended.is_set():
                if len(under_way) < UNDER_WAY_MAX:
                    task = group.create_task(self._next(self.prescriptions.take()))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                due += self._rng.expovariate(rate)
                await asyncio.sleep(due - loop.time())

    async def _next(self, prescription: Prescription) -> None:
        """Make the next delivery of a prescription; another may follow only after its end."""
        delivery = prescription.deliveries.popleft()
        headers = self._keys.sign(delivery.id, self.now, delivery.body)
        if self._rng.random() < self._hang_ups:
            await self.attempt(delivery, "genuine", headers, within_s=HANG_UP_S)
        await self.deliver(delivery, stubborn=prescription.stubborn, headers=headers)
        for kind, share in MISCHIEF.items():
            if self._rng.random() < share:
                await self._misbehave(delivery, kind, headers)
        self.prescriptions.give_back(prescription)

    async def _misbehave(self, delivery: Delivery, kind: Kind, headers: Mapping[str, str]) -> None:
        if kind == "replayed":
            await self.attempt(delivery, kind, headers)
        elif kind == "duplicate":
            await self.attempt(delivery, kind)
        else:
            changes = {"type": "prescription unheard of"} if kind == "unusable" else {}
            await self.attempt(self.prescriptions.another(delivery, **changes), kind)


def _words(body: bytes) -> tuple[str, str]:
    """Return `outcome` and `reason` (or `code`) of a response; empty for responses of other programs."""
    try:
        answer: Any = orjson.loads(body)
    except orjson.JSONDecodeError:
        return "", ""
    if not isinstance(answer, dict):
        return "", ""
    return str(answer.get("outcome", "")), str(answer.get("reason") or answer.get("code") or "")
