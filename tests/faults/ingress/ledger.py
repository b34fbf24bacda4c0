"""All sent deliveries, with times and responses: the sender's records."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from math import inf
from typing import Literal, NamedTuple

# Of a delivery that is ours to make, `genuine` is the first copy and every retry, `duplicate` one more although it was
# answered, `replayed` the very same bytes and headers as before; `conflict` is another body under an id that was taken,
# `rival` one that is sent at the same time; `unusable` is no event, though genuine. The rest must be refused: `forged`
# has another key's signature, `stale` a good one that is too old.
Kind = Literal["genuine", "duplicate", "replayed", "conflict", "rival", "unusable", "forged", "stale"]
HOSTILE: frozenset[Kind] = frozenset({"forged", "stale"})
# A process's connections may end this long before its death is noticed.
DEATH_S = 1.0


class Delivery(NamedTuple):
    """One body under one id."""

    id: str
    key: str  # the prescription that it is about
    body: bytes

    @property
    def sha256(self) -> str:
        return sha256(self.body).hexdigest()


@dataclass(slots=True)
class Attempt:
    """One request; times are seconds of a monotonic clock."""

    delivery: Delivery
    kind: Kind
    sent_at: float
    answered_at: float = inf  # infinite without a response
    ended_at: float = inf  # with or without a response
    status: int = 0  # 0 without a response
    outcome: str = ""  # of the response, with its `reason`, or the sender's error
    reason: str = ""
    stepped: bool = False  # clocks were stepped during the request, so it may be too old or too new

    @property
    def promised(self) -> bool:
        return 200 <= self.status < 300


@dataclass(slots=True)
class Ledger:
    """Every attempt of a run, in the order of sending."""

    attempts: list[Attempt] = field(default_factory=list)
    leaks: list[str] = field(default_factory=list)  # responses with health information

    def of(self, *kinds: Kind) -> Iterator[Attempt]:
        return (each for each in self.attempts if each.kind in kinds)

    def unsettled(self, at: float, *, drained_at: float) -> set[str]:
        """Ids of which a process that dies at `at` may have written something and not written down that it has.

        A request that was under way then, and what was spooled since `drained_at`, when the spool was empty.
        """
        return {
            each.delivery.id
            for each in self.attempts
            if each.sent_at <= at and each.ended_at >= (drained_at if each.outcome == "spooled" else at - DEATH_S)
        }

    @property
    def promised(self) -> int:
        return sum(each.promised for each in self.attempts)

    @property
    def worst_answer_s(self) -> float:
        return max((each.answered_at - each.sent_at for each in self.attempts if each.status), default=0.0)
