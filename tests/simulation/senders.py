"""Senders: what they send, how they try again, and the ledger of what each attempt was answered."""

import asyncio
import copy
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

import orjson

from bridge.runtime.http import Answer
from bridge.runtime.slot import sign
from tests.simulation.replica import KEY, Host, Request
from tests.simulation.world import World

SAMPLES = Path(__file__).parents[1] / "data" / "samples" / "native"
# In every free text of a body; may stand in no answer, log line, metric or header.
MARKER = "Zyxmarker"
TEXTS = ("first_name", "last_name", "note", "description", "sig", "line1", "phone", "name")

Kind = Literal["event", "conflict", "unusable", "hostile"]


class Delivery(NamedTuple):
    """One body under one id."""

    number: int
    source: str
    id: str
    key: str
    kind: Kind
    body: bytes
    sha256: str

    def __repr__(self) -> str:
        return f"delivery {self.number} ({self.id} of {self.key}, {self.kind})"


@dataclass(eq=False)
class Attempt:
    """One request and its answer; `outcome` is empty while there is none."""

    delivery: Delivery
    host: str
    start: str  # which process of the host had its port open
    sent_at: float
    arrived_at: float = -1.0
    answered_at: float = -1.0  # when the process gave its answer
    status: int = 0
    outcome: str = ""
    code: str = ""
    received: bool = False  # the answer has reached the sender

    @property
    def promised(self) -> bool:
        return self.status in (200, 202)


@cache
def _templates() -> Sequence[dict[str, Any]]:
    return [_marked(orjson.loads(path.read_bytes())) for path in sorted(SAMPLES.glob("*.json"))]


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: f"{MARKER} {each}" if name in TEXTS and isinstance(each, str) else _marked(each)
            for name, each in value.items()
        }
    return [_marked(each) for each in value] if isinstance(value, list) else value


def a_delivery(rng: random.Random, number: int, *, key: str, event_id: str, kind: Kind = "event") -> Delivery:
    """Make a native delivery of any type about a prescription."""
    body = copy.deepcopy(_templates()[rng.randrange(len(_templates()))])
    body |= {"id": event_id, "sequence": number}
    if body["type"] == "prescriber.enrollment_changed":
        body["data"]["prescriber"]["id"] = key
    elif body["type"] == "system.ping":
        body["account_id"] = key
    else:
        body["data"]["prescription_id"] = key
    if kind == "unusable":
        body["environment"] = "production"
    if kind == "conflict":
        body["sequence"] += 100_000
    content = orjson.dumps(body)
    return Delivery(number, "drx", event_id, key, kind, content, sha256(content).hexdigest())


@dataclass(eq=False)
class Senders:
    """Everybody who posts to the public port, and what became of it."""

    world: World
    hosts: Sequence[Host]
    attempts: list[Attempt] = field(default_factory=list)
    under_way: int = 0
    answers: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._turns: dict[str, asyncio.Future[None]] = {}
        self.on_answer: Any = lambda _attempt: None

    def send(self, delivery: Delivery, way: "Way") -> None:
        """Deliver in the background, after what was sent before of the same key if the sender keeps order."""
        before = self._turns.get(delivery.key) if way.in_order else None
        task = self.world.loop.create_task(self._deliver(delivery, way, before), context=self.world.context)
        if way.in_order:
            self._turns[delivery.key] = task

    async def _deliver(self, delivery: Delivery, way: "Way", before: "asyncio.Future[None] | None") -> None:
        self.under_way += 1
        try:
            if before is not None:
                await asyncio.wait([before])
            rng = random.Random(way.salt)  # noqa: S311 - of the plan's chance
            for number in range(way.tries):
                host = self.hosts[(way.host + (number if way.roams else 0)) % len(self.hosts)]
                attempt = await self.attempt(delivery, host, rng, patience_s=way.patience_s)
                if attempt.received and attempt.promised:
                    return
                await asyncio.sleep(rng.uniform(0.5, 2.0) * min(2.0**number, 30.0))
        finally:
            self.under_way -= 1

    async def attempt(
        self,
        delivery: Delivery,
        host: Host,
        rng: random.Random,
        *,
        patience_s: float,
        headers: Mapping[str, str] | None = None,
    ) -> Attempt:
        """Post once, and wait for the answer for a while."""
        world = self.world
        attempt = Attempt(delivery, host.name, "", world.loop.time())
        self.attempts.append(attempt)
        await asyncio.sleep(rng.uniform(0.0005, 0.01))
        port, process = host.port, host.process
        if port is None or process is None or port.closed:
            world.note("sender", delivery.number, "refused by", host.name)
            return attempt
        attempt.start = process.name
        came: asyncio.Future[Answer] = world.loop.create_future()
        travels_s = rng.uniform(0.0005, 0.01)

        def answered(answer: Answer) -> None:
            self._note(attempt, answer)
            world.later(travels_s, lambda: None if came.done() else came.set_result(answer))

        if headers is None:
            at = int(world.true_clock.now())
            headers = {
                "content-type": "application/json",
                "webhook-id": delivery.id,
                "webhook-timestamp": str(at),
                "webhook-signature": sign(delivery.id, at, delivery.body, key=KEY),
            }
        request = Request(
            f"/webhooks/{delivery.source}", headers, delivery.body, answered, head_first=rng.random() < 0.2
        )
        attempt.arrived_at = world.loop.time()
        port.arrive(request, process)
        await asyncio.wait([came], timeout=patience_s)
        attempt.received = came.done()
        world.note("sender", delivery.number, "at", attempt.start, attempt.status, attempt.outcome, attempt.received)
        return attempt

    def _note(self, attempt: Attempt, answer: Answer) -> None:
        content = orjson.loads(answer.body)
        attempt.answered_at = self.world.loop.time()
        attempt.status = answer.status
        attempt.outcome = content["outcome"]
        attempt.code = content.get("code") or content.get("reason") or ""
        self.answers.append(answer.head + answer.body)
        self.on_answer(attempt)


class Way(NamedTuple):
    """How a delivery is sent: to which host first, how often, and what its sender does about an answer."""

    host: int
    tries: int
    roams: bool  # to the other host with the next try
    patience_s: float
    in_order: bool  # after the one before of its key
    salt: int
