"""Endless plausible deliveries from a seed: many prescription lives, interleaved, each in its own order."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import orjson

from bridge.dev.story import Cast, Environment, Life
from bridge.dev.story_plots import PLOTS

# All of them past for any clock this runs under, so that no event is ahead of its receipt; fixed, so that one seed is
# one stream on any day.
EPOCH = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)
# Lives told at one time: enough that neighbours in the stream have different keys, few enough to end soon.
LIVES_AT_ONCE = 16

FIRST_NAMES = ("Marisol", "Theo", "Wanda", "Amadou", "Priya", "Søren", "Lucía", "Kenji")
LAST_NAMES = ("Quintero", "Marsh", "Kowalczyk", "Diallo", "Raman", "Lindqvist", "Ortega", "Mori")
PLACES = (("Novi", "48374"), ("Wixom", "48393"), ("Milford", "48381"), ("Howell", "48843"))
MEDICATIONS = (
    ("lisinopril 10 mg oral tablet", "00591040701", "314076", "30", 30, "Take one tablet by mouth every morning"),
    ("atorvastatin 20 mg oral tablet", "00093505798", "617310", "90", 90, "Take one tablet by mouth at bedtime"),
    ("metformin 500 mg oral tablet", "00093104801", "861007", "60", 30, "Take one tablet by mouth twice a day"),
)


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One delivery to be made: its webhook id and the exact bytes of its body."""

    id: str
    body: bytes


def a_cast(rng: random.Random) -> Cast:
    """Draw people, a place and a medicine; every number is one that is reserved for tests or belongs to nobody."""
    city, postal_code = rng.choice(PLACES)
    description, ndc, rxcui, quantity, days, sig = rng.choice(MEDICATIONS)
    number = rng.randrange(1, 10_000)
    address = {"line1": f"{number} Birch Ln", "city": city, "state": "MI", "postal_code": postal_code, "country": "US"}
    return Cast(
        account_id=f"acct_{4000 + number % 50}",
        patient=_a_patient(rng, number, address=address),
        prescriber={
            "id": f"prv_{300 + number % 40}",
            "npi": f"19999999{number % 40:02d}",
            "spi": f"999999999{number % 40:04d}",
            "dea_number": f"BO999{number % 40:04d}",
            "first_name": "Adaeze",
            "last_name": "Okafor",
        },
        pharmacy={
            "ncpdp_id": f"99990{number % 100:02d}",
            "npi": f"19999998{number % 100:02d}",
            "name": f"Maple Street Pharmacy #{number % 100:03d}",
            "phone": _phone(rng),
            "fax": _phone(rng),
            "address": {**address, "line1": "100 Maple St"},
        },
        medication={
            "description": description,
            "ndc": ndc,
            "rxcui": rxcui,
            "quantity": quantity,
            "quantity_unit": "C48542",
            "days_supply": days,
            "refills": 3,
            "sig": sig,
            "substitution_allowed": True,
        },
    )


def deliveries(seed: int, *, environment: Environment = "sandbox") -> Iterator[Outgoing]:
    """Yield deliveries for ever; the same seed gives the same bytes.

    Events of one prescription come in order, with events of others between them. All twenty types appear within the
    first two hundred.
    """
    rng = random.Random(seed)  # noqa: S311 - test traffic, not keys
    waiting = _lives(rng, environment)
    running = [next(waiting) for _ in range(LIVES_AT_ONCE)]
    while True:
        place = rng.randrange(len(running))
        event = next(running[place], None)
        if event is None:
            running[place] = next(waiting)
        else:
            yield event


def _lives(rng: random.Random, environment: Environment) -> Iterator[Iterator[Outgoing]]:
    number = 0
    while True:
        starts_at = EPOCH + timedelta(minutes=number % 40_000)
        life = Life(a_cast(rng), rng=rng, starts_at=starts_at, environment=environment)
        PLOTS[number % len(PLOTS)](life)
        yield iter([Outgoing(event["id"], orjson.dumps(event)) for event in life.events])
        number += 1


def _a_patient(rng: random.Random, number: int, *, address: Mapping[str, object]) -> dict[str, object]:
    return {
        "id": f"pat_{number}",
        "mrn": f"MRN-{number:07d}",
        "first_name": rng.choice(FIRST_NAMES),
        "last_name": rng.choice(LAST_NAMES),
        "date_of_birth": f"{rng.randrange(1935, 2015)}-{rng.randrange(1, 13):02d}-{rng.randrange(1, 29):02d}",
        "sex": rng.choice("FMU"),
        "phone": _phone(rng),
        "email": f"patient.{number}@example.test",
        "address": address,
    }


def _phone(rng: random.Random) -> str:
    # 555-0100 to 555-0199 are reserved for fiction (ATIS-0300115).
    return f"+12485550{rng.randrange(100, 200)}"
