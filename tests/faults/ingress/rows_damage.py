"""The row in which the disk of the spool has changed what it holds."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.component.spool.independent_reader import read, record_in
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.service_process import until

PAGE = 4096
# Enough for several of each kind of damage to hit records and not only the space between.
SPOOLED = 60
LIVES = 4


async def damaged(scene: Scene) -> None:
    """Spool something with the brokers frozen, kill the ingress, damage a segment, and deliver the rest."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(LIVES)):
            scene.brokers.pause()
            await asyncio.to_thread(until, lambda: scene.spooled() >= SPOOLED, what="something spooled")
            await asyncio.to_thread(scene.ingress.kill)
            lost = await asyncio.to_thread(_damage, Path(scene.ingress.env["BRIDGE_SPOOL__DIR"]), scene.rng)
            scene.excused |= lost
            scene.ingress.start()
            await scene.heal()
            counted = scene.ingress.metric("drxbridge_spool_corrupt_records_total")
            torn = scene.ingress.metric("drxbridge_spool_torn_tails_total")
            assert counted + torn >= bool(lost), "damage that nobody was told of"
        assert scene.excused, "nothing was damaged"


def _damage(directory: Path, rng: random.Random) -> set[str]:
    """Damage one segment, and tell the ids of the events that stood there and can be read no more."""
    before = _readable(directory)
    path = rng.choice(sorted(directory.glob("*.segment")))
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.randint(1, 8)):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 1:
            del raw[at:]
        case 2:
            at -= at % PAGE
            raw[at : at + PAGE] = bytes(len(raw[at : at + PAGE]))
        case 3:
            del raw[at : at + rng.randint(1, PAGE)]
        case _:
            raw[at : at + PAGE] = rng.randbytes(PAGE)
    path.write_bytes(raw)
    return before - _readable(directory)


def _readable(directory: Path) -> set[str]:
    """Ids of what waits, as a reader finds it that shares no code with the bridge."""
    payloads = [each["payload"] for each in read(directory, directory / "keys") if "payload" in each]
    return {record_in(bytes.fromhex(each))["headers"]["ce_id"].decode() for each in payloads}


ROWS = (Row("D3", "spool damaged while the ingress is down: bits, pages, its end; judged by what is intact", damaged),)
