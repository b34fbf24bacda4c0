"""Deliveries of whole prescription lives, with marks that must not be seen anywhere but in a record's value."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from tests.faults.ingress.ledger import Delivery
from tests.story import EPOCH, PLOTS, Body, Cast, Life, a_cast, account_news, token

_PLOTS = [plot for plot in PLOTS if plot is not account_news]
# Fields of a patient whose text nobody parses.
_MARKED = ("last_name", "mrn", "email")


@dataclass(slots=True)
class Prescription:
    """What is still to be said about one prescription, oldest first.

    Attributes:
        stubborn: Whether its sender tries again what was not taken; H2H promises nothing of the kind.
    """

    key: str
    stubborn: bool
    deliveries: deque[Delivery] = field(default_factory=deque)


class Prescriptions:
    """Prescriptions that are being told, always about `at_once` of them; equal arguments, equal bytes.

    Attributes:
        mark: Stands in every body as health information does.
        key_mark: Begins every prescription id, which may be seen as a record's key and in its value.
    """

    def __init__(self, run: str, *, rng: random.Random, at_once: int, stubborn: float = 0.5) -> None:
        """Mark everything by `run`, a word that stands nowhere else; `stubborn` is the share of stubborn senders."""
        self.mark = f"PHI{run}IHP"
        self.key_mark = f"rx_{run}"
        self._rng = rng
        self._at_once = at_once
        self._stubborn = stubborn
        self._told = 0
        self._ready: list[Prescription] = []

    def take(self) -> Prescription:
        """Give one of which nothing is under way; a new one as long as there are too few."""
        if len(self._ready) < self._at_once:
            return self.new()
        place = self._rng.randrange(len(self._ready))
        self._ready[place], self._ready[-1] = self._ready[-1], self._ready[place]
        return self._ready.pop()

    def give_back(self, prescription: Prescription) -> None:
        """Its last delivery has been dealt with; the next one may go."""
        if prescription.deliveries:
            self._ready.append(prescription)

    def new(self) -> Prescription:
        """Tell another life."""
        number, rng = self._told, self._rng
        self._told += 1
        life = Life(self._cast(), rng=rng, starts_at=EPOCH + timedelta(minutes=number % 40_000))
        life.prescription_id = f"{self.key_mark}{number:06d}"
        _PLOTS[number % len(_PLOTS)](life)
        told = deque(self.delivery(body) for body in life.events)
        return Prescription(life.prescription_id, rng.random() < self._stubborn, told)

    def delivery(self, document: Body) -> Delivery:
        """Write an event as it is sent."""
        # Unknown members are kept and are health information for all that anyone knows: a mark in every body.
        marked = {**document, "data": {**document["data"], "x_remark": self.mark}}
        return Delivery(document["id"], document["data"]["prescription_id"], orjson.dumps(marked))

    def another(self, delivery: Delivery, **changes: Any) -> Delivery:
        """Say the same under an id of its own, or with other changes to the envelope."""
        document: dict[str, Any] = orjson.loads(delivery.body) | {"id": f"evt_{token(self._rng, 26)}"} | changes
        return Delivery(document["id"], delivery.key, orjson.dumps(document))

    def _cast(self) -> Cast:
        cast = a_cast(self._rng)
        patient: Mapping[str, object] = {**cast.patient, **{name: f"{name}.{self.mark}" for name in _MARKED}}
        medication = {**cast.medication, "sig": f"{cast.medication['sig']} {self.mark}"}
        return Cast(cast.account_id, patient, cast.prescriber, cast.pharmacy, medication)
