import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import orjson

from bridge.dev.sources import SOURCES
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.reader import open_reader
from bridge.settings import HttpSettings
from tests.builders import a_growing_body
from tests.faults.ingress.ledger import Delivery
from tests.faults.ingress.load import PATIENCE_S
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

COPIES = 10
SENDERS = 16
BODY_MAX_BYTES: int = HttpSettings.model_fields["body_max_bytes"].default


async def tenfold(scene: Scene) -> None:
    told = [scene.load.prescriptions.new() for _ in range(scene.tier.times(25))]
    deliveries = [delivery for prescription in told for delivery in prescription.deliveries] * COPIES
    scene.rng.shuffle(deliveries)
    left = iter(deliveries)

    async def send() -> None:
        for delivery in left:
            await scene.load.deliver(delivery, stubborn=True)

    await _all_of(scene, send)


async def conflicting(scene: Scene) -> None:
    left = iter([scene.load.prescriptions.new() for _ in range(scene.tier.times(25))])

    async def send() -> None:
        for prescription in left:
            for delivery in prescription.deliveries:
                other = scene.load.prescriptions.another(delivery, id=delivery.id, account_id="acct_other")
                await _send_both(scene, delivery, other)

    await _all_of(scene, send)


async def growing(scene: Scene) -> None:
    numbers = iter(range(scene.tier.times(25)))

    async def send() -> None:
        for number in numbers:
            event_id, key = f"evt_growing_{number}", f"{scene.load.prescriptions.key_mark}g{number}"
            body = a_growing_body(BODY_MAX_BYTES, id=event_id, key=key)
            await scene.load.deliver(Delivery(event_id, key, body), stubborn=True)

    async with scene.load.open(), scene.load.poisson(scene.tier.rate):
        await send()


async def returning(scene: Scene) -> None:
    """Let prescriptions leave a state and return to it within one turn of the loop, for a sender without ids.

    Each of the three arrives on a separate connection while the process is frozen.
    """
    vendor, name, secrets_dir = SOURCES["digitalrx"], f"{scene.ingress.source}-states", scene.directory / "states"
    secrets_dir.mkdir()
    secret = vendor.new_secret()
    (secrets_dir / "current").write_text(secret)
    await asyncio.to_thread(scene.ingress.kill)
    scene.ingress.env |= vendor.settings(name, secrets_dir)
    await asyncio.to_thread(scene.ingress.start().ready)
    numbers = range(scene.tier.times(10))
    for number in numbers:
        bodies = [orjson.dumps({"QueueID": number, "Status": state}) for state in ("Packed", "Approved", "Packed")]
        connections = [await asyncio.open_connection("127.0.0.1", urlsplit(scene.ingress.url).port) for _ in bodies]
        for reader, writer in reversed(connections):  # epoll reports them in their order: one just read stays ahead
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
        scene.ingress.freeze()
        for (_, writer), body in zip(connections, bodies, strict=True):
            head = f"POST /webhooks/{name} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Webhook-Secret: {secret}\r\n"
            length = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(f"{head}{length}".encode() + body)
        scene.ingress.thaw()
        answers = [await asyncio.wait_for(reader.read(), PATIENCE_S) for reader, _ in connections]
        assert all(b'"outcome":"accepted"' in answer for answer in answers), answers
        for _, writer in connections:
            writer.close()
    async with open_reader(
        KafkaConnection(scene.brokers.bootstrap_servers), [scene.topic], from_beginning=True
    ) as found:
        keys = [record.key async for record in found.until_end() if record.header("ce_source") == name]
    assert Counter(keys) == {f"q:{number}".encode(): 3 for number in numbers}


async def _send_both(scene: Scene, delivery: Delivery, other: Delivery) -> None:
    if scene.rng.random() < 0.5:
        await scene.load.deliver(delivery, stubborn=True)
        await scene.load.deliver(other, stubborn=True, kind="conflict")
    else:
        await asyncio.gather(
            scene.load.deliver(delivery, stubborn=True), scene.load.deliver(other, stubborn=True, kind="rival")
        )


async def _all_of(scene: Scene, send: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async with asyncio.timeout(PATIENCE_S * scene.tier.factor), scene.load.open(), asyncio.TaskGroup() as group:
        for _ in range(SENDERS):
            group.create_task(send())


ROWS = (
    Row("K1", "every delivery ten times, shuffled", tenfold),
    Row("K2", "another body under the same id", conflicting),
    Row("K3", "the largest bodies, whose records are four times as large", growing),
    Row("K4", "states left and entered again in one turn, by a sender without ids", returning, effects=False),
)
