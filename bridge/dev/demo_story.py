"""Who plays in the guided tour, and by which eyes it is checked: the chapters are put together here."""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg  # noqa: TID251 - looks at what the consumers have written, without their code
import orjson

from bridge.avro.event_decoder import open_decoder
from bridge.dev.demo import SOURCE, Tour
from bridge.dev.demo_disk import SpoolWitness
from bridge.dev.demo_hands import Intruder, Operator, PowerSwitch
from bridge.dev.demo_model import PostgresWitness
from bridge.dev.demo_outage import OutageTour
from bridge.dev.demo_poison import PoisonTour
from bridge.dev.demo_read_model import tour_timeline
from bridge.dev.demo_repeats import tour_repeats
from bridge.dev.demo_screen import Screen
from bridge.dev.demo_witness import KafkaWitness, open_witness
from bridge.dev.services import PARTITIONS
from bridge.dev.simulator import RetryPolicy, Sender, Sign, signer
from bridge.dev.stack import Stack
from bridge.dev.story import MINUTE, Life, Outgoing, a_cast, mail_order, token
from bridge.ingress.signatures import sign
from bridge.kafka.connection import Connection
from bridge.kafka.routing import partition
from bridge.settings import Registry

# The life that is told took four days; it ends before now.
_BEGAN_AGO = timedelta(days=5)
# Enough is missing for no parser to take the body for whole.
_CUT_BYTES = 40


async def tour(stack: Stack, screen: Screen) -> str:
    """Take the whole tour; the key of the prescription it was about."""
    endpoints = stack.endpoints
    source = endpoints["sources"][SOURCE]
    rng = random.Random()  # noqa: S311 - a story, not keys
    life = _a_life(rng)
    events = list(life.events)
    marker = f"forged-{token(rng, 10)}"
    life.tell("cancel.responded", MINUTE, request_id=life.request_id("cx"), decision="approved", note=marker)
    life.tell("alert.raised", MINUTE, alert_id="al_1", category="other", workflow="new_rx", severity="info")
    forged, broken = life.events[-2:]
    connection = Connection(bootstrap_servers=endpoints["bootstrap_servers"])
    async with (
        aiohttp.ClientSession() as session,
        open_decoder(Registry()) as decoder,
        open_witness(connection, decoder) as witness,
        asyncpg.create_pool(endpoints["postgres"], min_size=1, max_size=1) as pool,
    ):
        url, model = f"{endpoints['ingress']}{source['path']}", PostgresWitness(pool.fetch)
        sender = _sender(session, url, signer(Path(source["secret_file"])), rng=rng)
        forger = _sender(session, url, _forged_signature(), rng=rng)
        first = Tour(screen=screen, sender=sender, forger=forger, witness=witness, model=model, partitions=PARTITIONS)
        lived = await first.life(events)
        await first.forged(forged, marker=marker)
        await first.broken(Outgoing(broken["id"], orjson.dumps(broken)[:-_CUT_BYTES]))
        await tour_timeline(lived, screen=screen, model=model)
        await _poison(stack, screen=screen, sender=sender, model=model, rng=rng)
        await _outage(stack, screen=screen, sender=sender, witness=witness, model=model, rng=rng)
    return life.prescription_id


async def _poison(stack: Stack, *, screen: Screen, sender: Sender, model: PostgresWitness, rng: random.Random) -> None:
    endpoints = stack.endpoints
    settings = {
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": endpoints["bootstrap_servers"],
        "CONSUMER_POSTGRES__DSN": endpoints["postgres"],
    }
    sick = _a_life(rng)
    poison = PoisonTour(
        screen=screen,
        sender=sender,
        model=model,
        intruder=Intruder(endpoints["bootstrap_servers"]),
        operator=Operator("drx-consumer", settings),
        sick=sick.events,
        well=_a_life(rng, fits=lambda life: _partition(life) == _partition(sick)).events,
        partitions=PARTITIONS,
    )
    await poison.put_right(await poison.poisoned())


async def _outage(
    stack: Stack, *, screen: Screen, sender: Sender, witness: KafkaWitness, model: PostgresWitness, rng: random.Random
) -> None:
    directory, key_dir = stack.directory.spool, stack.directory.spool_key_dir()
    one = _a_life(rng)
    other = _a_life(rng, fits=lambda life: _partition(life) != _partition(one))
    outage = OutageTour(
        screen=screen,
        sender=sender,
        witness=witness,
        model=model,
        brokers=PowerSwitch(stack),
        disk=SpoolWitness(directory, key_dir),
        operator=Operator("drx-bridge", {"BRIDGE_SPOOL__DIR": str(directory), "BRIDGE_SPOOL__KEY_DIR": str(key_dir)}),
        lives=[one.events, other.events],
    )
    outlasted = await outage.outage()
    await tour_repeats(outlasted, screen=screen, sender=sender, witness=witness, model=model)


def _a_life(rng: random.Random, *, fits: Callable[[Life], bool] = lambda _life: True) -> Life:
    """Draw a life that fits."""
    while True:
        life = Life(a_cast(rng), rng=rng, starts_at=datetime.now(UTC) - _BEGAN_AGO)
        if fits(life):
            mail_order(life)
            return life


def _partition(life: Life) -> int:
    return partition(life.prescription_id.encode(), PARTITIONS)


def _sender(session: aiohttp.ClientSession, url: str, signature: Sign, *, rng: random.Random) -> Sender:
    return Sender(session=session, url=url, sign=signature, policy=RetryPolicy(), rng=rng)


def _forged_signature() -> Sign:
    key = secrets.token_bytes(32)
    return lambda webhook_id, timestamp, body: sign(webhook_id, timestamp, body, key=key)
