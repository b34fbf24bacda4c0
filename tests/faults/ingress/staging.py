"""Sets the scene of a row: an empty topic, our bridge and the read model as processes, and what stands between."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from hashlib import sha256
from uuid import uuid4

import orjson

from bridge.dev.kafka import create_topics
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.cluster import STANDARD_TOPICS
from tests.faults.ingress.keys import Keys, signed
from tests.faults.ingress.ledger import Ledger
from tests.faults.ingress.load import Load
from tests.faults.ingress.proxy import proxies
from tests.faults.ingress.readers import reading
from tests.faults.ingress.scene import Scene, Stage, Tier
from tests.faults.ingress.subject import Logged, Subject
from tests.faults.ingress.traffic import Prescriptions
from tests.integration.ingress_process import IngressProcess, header

PARTITIONS = STANDARD_TOPICS[UNRECOGNIZED_TOPIC]
FORGER_KEY = b"whoever forges knows another key"


@asynccontextmanager
async def scene_of(
    stage: Stage,
    *,
    seed: str,
    tier: Tier,
    detour: bool = False,
    effects: bool = True,
    command: Sequence[str] = (),
    **settings: str,
) -> AsyncIterator[Scene]:
    """Set a scene on an empty topic; everything that it starts ends with it.

    Args:
        stage: What is there already.
        seed: Of traffic and of all that is left to chance.
        tier: How much of everything.
        detour: Whether the ingress reaches the brokers through proxies.
        effects: Whether a read model runs too.
        command: What to run instead of `serve`.
        settings: Of the ingress, without their prefix.
    """
    # The same seed has the same prescriptions in the same partitions; topic and directory are nobody else's.
    run, word = uuid4().hex[:10], sha256(seed.encode()).hexdigest()[:10]
    topic = f"faults.{run}"
    brokers, directory = stage.brokers, stage.directory / run
    await asyncio.to_thread(create_topics, brokers.bootstrap_servers, {topic: PARTITIONS, **STANDARD_TOPICS})
    rng, chance = (random.Random(f"{seed}-{part}") for part in ("load", "faults"))  # noqa: S311 - no keys
    ledger = Ledger()
    async with AsyncExitStack() as stack:
        between = await stack.enter_async_context(proxies(brokers.detours)) if detour else {}
        ingress = stack.enter_context(
            IngressProcess(
                directory / "ingress",
                brokers.detour_servers if detour else brokers.bootstrap_servers,
                command=command,
                KAFKA__ROUTES=orjson.dumps({"*": topic}).decode(),
                **settings,
            )
        )
        reader = None
        if effects:
            where = (brokers.bootstrap_servers, stage.postgres, directory / "reader")
            reader = stack.enter_context(reading(*where, topic=topic))
        keys = Keys(ingress.secrets_dir)
        subject = subject_of(ingress, keys, brokers.bootstrap_servers, topic)
        load = Load(subject, ledger, Prescriptions(word, rng=rng, at_once=tier.at_once), rng=rng)
        await asyncio.to_thread(ingress.ready)
        if reader is not None:
            await asyncio.to_thread(reader.process.ready)
        scene = Scene(stage, directory, topic, ingress, subject, keys, ledger, load, chance, tier, between, reader)
        watching = asyncio.create_task(scene.watch())
        try:
            yield scene
        finally:
            watching.cancel()
        if reader is not None:
            assert reader.process.alive, "the read model has ended"


def subject_of(ingress: IngressProcess, keys: Keys, bootstrap_servers: str, topic: str) -> Subject:
    async def log() -> list[Logged]:
        source = ("ce_source", ingress.source.encode())
        topics = [topic, UNRECOGNIZED_TOPIC]
        async with open_reader(KafkaConnection(bootstrap_servers), topics, from_beginning=True) as found:
            return [
                Logged(
                    (record.topic, record.partition),
                    record.offset,
                    (record.key or b"").decode(),
                    header(record, "ce_id"),
                    header(record, "drx_body_sha256"),
                    record.topic == UNRECOGNIZED_TOPIC,
                    b"\n".join(content for name, content in record.headers if name != "ce_subject"),
                )
                async for record in found.until_end()
                if source in record.headers
            ]

    return Subject(ingress.webhook_url, keys.sign, partial(signed, FORGER_KEY), log)
