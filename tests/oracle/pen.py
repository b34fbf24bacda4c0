"""Writes events of one prescription in every way that the ingress accepts."""

import random
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

Body = dict[str, Any]

# Past for any clock this runs under: no event is ahead of its receipt, so none is clamped.
STARTS_AT = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
# Seconds over which a history is spread: all at one moment, a few moments with ties, hardly a tie.
SPANS_S = (1, 4, 100_000)
# Moments before any other, in spellings of their own: the first that a datetime can hold, and before the epoch.
ANCIENT = ("0001-01-01T00:00:00Z", -1, "1969-12-31T23:59:59Z")
# Counters as senders write them: none at all, too few to tell facts apart, or one that hardly ever repeats.
SEQUENCES: Sequence[Sequence[Any]] = ((None,), (None, 0, 1, "2", -3, 2**63 - 1), range(1, 1000))
EASTERN = timezone(timedelta(hours=-5))
# Mixed case and punctuation: an order by locale would not be the order of code points.
ID_LETTERS = "0123456789abcXYZ-_."


class Pen:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.prescription_id = f"rx_{self._token(12)}"
        self.bodies: list[Body] = []
        self._span_s = rng.choice(SPANS_S)
        self._sequences = rng.choice(SEQUENCES)
        self.choose_vocabulary()

    def choose_vocabulary(self) -> None:
        """Let some words be used more than others, so that states in which all agree come up too."""
        self._narrow = self.rng.choice((1, 2, None))
        self._unknown = self.rng.choice((0.0, 0.2))
        self._chosen: dict[tuple[str, ...], Sequence[str]] = {}

    def word(self, catalogued: tuple[str, ...]) -> str:
        """Choose a word of a list, or now and then one that is in no list."""
        if self.rng.random() < self._unknown:
            return self.rng.choice(("UNKNOWN", "not_in_the_list", "Dispensed", ""))
        count = self._narrow or len(catalogued)
        few = self._chosen.setdefault(catalogued, self.rng.sample(catalogued, min(count, len(catalogued))))
        return self.rng.choice(few)

    def spelled(self, name: str | None) -> object:
        """Write an id as text or, where that loses nothing, as a number."""
        return int(name) if name is not None and name.isdigit() and self.rng.random() < 0.5 else name

    def coin(self) -> bool:
        return self.rng.random() < 0.5

    def tell(self, event_type: str, **fields: Any) -> None:
        """Add one event; a field that is None is left out or null."""
        given = {name: value for name, value in fields.items() if value is not None or self.coin()}
        body = {
            "id": f"evt_{self._token(20)}-{len(self.bodies)}",
            "type": event_type,
            "version": "1",
            "timestamp": self._timestamp(),
            "source": "h2h-drx",
            "environment": "sandbox",
            "account_id": "acct_4021",
            "sequence": self.rng.choice(self._sequences),
            "data": {"prescription_id": self.prescription_id, **given},
        }
        self.bodies.append(body)

    def _timestamp(self) -> object:
        if self.rng.random() < 0.02:
            return self.rng.choice(ANCIENT)
        moment = STARTS_AT + timedelta(seconds=self.rng.randrange(self._span_s))
        if self.rng.random() < 0.2:
            return moment.strftime(f"%Y-%m-%dT%H:%M:%S.{self.rng.choice(('000001', '0000019', '9'))}Z")
        spellings: tuple[Callable[[], object], ...] = (
            lambda: moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            lambda: moment.strftime("%Y-%m-%dT%H:%M:%S.000000900Z"),
            lambda: moment.astimezone(EASTERN).isoformat(),
            lambda: moment.replace(tzinfo=None).isoformat(),
            lambda: int(moment.timestamp()),
            lambda: int(moment.timestamp()) * 1000,
        )
        return self.rng.choice(spellings)()

    def _token(self, length: int) -> str:
        return "".join(self.rng.choices(ID_LETTERS, k=length))
