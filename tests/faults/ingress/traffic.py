"""Deliveries of complete prescription histories, with marks that may appear only in record values."""

import random
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import orjson

from bridge.dev.traffic import ALPHABET, scenario, scenarios
from tests.faults.ingress.ledger import Delivery

# The last plot is about an account.
_STORIES = len(scenarios("drx")) - 1
# Fields of a patient that are not parsed.
_MARKED = ("last_name", "mrn", "email")
# Share of senders.
STUBBORN = 0.5


@dataclass(slots=True)
class Prescription:
    """The remaining events of one prescription, oldest first."""

    key: str
    stubborn: bool  # its sender retries; H2H does not promise that
    deliveries: deque[Delivery] = field(default_factory=deque)


class Prescriptions:
    """Prescriptions in progress, about `at_once` at a time; equal arguments give equal bytes."""

    def __init__(self, run: str, *, rng: random.Random, at_once: int) -> None:
        """Mark all bodies with `run`, a string that occurs nowhere else."""
        self.mark = f"PHI{run}IHP"  # in every body, in fields of health information
        self.key_mark = f"rx_{run}"  # prefix of prescription ids, which may appear in a record's key and value
        self._rng, self._at_once = rng, at_once
        self._told = 0
        self._ready: list[Prescription] = []

    def take(self) -> Prescription:
        """Return one without a delivery in progress; a new one as long as there are too few."""
        if len(self._ready) < self._at_once:
            return self.new()
        place = self._rng.randrange(len(self._ready))
        self._ready[place], self._ready[-1] = self._ready[-1], self._ready[place]
        return self._ready.pop()

    def give_back(self, prescription: Prescription) -> None:
        if prescription.deliveries:
            self._ready.append(prescription)

    def new(self) -> Prescription:
        number, rng = self._told, self._rng
        self._told += 1
        key = f"{self.key_mark}{number:06d}"
        told = deque(self._delivery(key, orjson.loads(body)) for body in scenario(rng, number % _STORIES))
        return Prescription(key, rng.random() < STUBBORN, told)

    def _delivery(self, key: str, document: dict[str, Any]) -> Delivery:
        # Unknown members are kept and are health information for all that anyone knows: a mark in every body.
        fields = document["data"] | {"prescription_id": key, "x_remark": self.mark}
        if patient := fields.get("patient"):
            fields["patient"] = patient | {name: f"{name}.{self.mark}" for name in _MARKED}
            fields["medication"] |= {"sig": f"{fields['medication']['sig']} {self.mark}"}
        return Delivery(document["id"], key, orjson.dumps(document | {"data": fields}))

    def another(self, delivery: Delivery, **changes: Any) -> Delivery:
        document: dict[str, Any] = (
            orjson.loads(delivery.body) | {"id": f"evt_{''.join(self._rng.choices(ALPHABET, k=26))}"} | changes
        )
        return Delivery(document["id"], delivery.key, orjson.dumps(document))
