import asyncio
import random
from pathlib import Path

from tests.component.spool.independent_reader import read, record_in
from tests.faults.ingress.ledger import HOSTILE
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.service_process import until

PAGE = 4096
# Enough for several of each kind of damage to hit records.
SPOOLED = 60
LIVES = 4
OUTAGES = 3


async def damaged(scene: Scene) -> None:
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


async def damaged_under_it(scene: Scene) -> None:
    """Damage the spool of a running ingress, then send all its deliveries again: lost ones are delivered late."""
    directory = Path(scene.ingress.env["BRIDGE_SPOOL__DIR"])
    for _ in range(scene.tier.times(OUTAGES)):
        first = len(scene.ledger.attempts)
        scene.brokers.pause()
        async with scene.load.poisson(scene.tier.rate):
            await asyncio.to_thread(until, lambda: scene.spooled() >= SPOOLED, what="something spooled")
        counted = scene.ingress.metric("drxbridge_spool_corrupt_records_total")
        await asyncio.to_thread(_damage_open_file, directory, scene.rng)
        await scene.heal()
        taken = [each for each in scene.ledger.attempts[first:] if each.promised and each.kind not in HOSTILE]
        lost = {each.delivery.id for each in taken} - {each.event_id for each in await scene.log()}
        assert scene.ingress.metric("drxbridge_spool_corrupt_records_total") - counted >= len(lost)
        scene.late |= lost
        async with scene.load.open():
            await asyncio.gather(*(scene.load.deliver(each.delivery, stubborn=True, kind=each.kind) for each in taken))
    assert scene.late, "nothing was damaged"


def _damage(directory: Path, rng: random.Random) -> set[str]:
    """Damage one segment, and return the ids of its events that can no longer be read."""
    before = _readable(directory)
    path = rng.choice(sorted(directory.glob("*.segment")))
    raw = bytearray(path.read_bytes())
    at = rng.randrange(len(raw))
    match rng.randrange(5):
        case 0:
            del raw[at:]
        case 1:
            del raw[at : at + rng.randint(1, PAGE)]
        case _:
            _damage_in_place(raw, rng)
    path.write_bytes(raw)
    return before - _readable(directory)


def _damage_open_file(directory: Path, rng: random.Random) -> None:
    path = rng.choice(sorted(directory.glob("*.segment")))
    if rng.randrange(3):
        raw = bytearray(path.read_bytes())
        _damage_in_place(raw, rng)
        path.write_bytes(raw)
    else:
        path.unlink()


def _damage_in_place(raw: bytearray, rng: random.Random) -> None:
    at = rng.randrange(len(raw))
    match rng.randrange(3):
        case 0:
            for _ in range(rng.randint(1, 8)):
                raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        case 1:
            at -= at % PAGE
            raw[at : at + PAGE] = bytes(len(raw[at : at + PAGE]))
        case _:
            raw[at : at + PAGE] = rng.randbytes(len(raw[at : at + PAGE]))


def _readable(directory: Path) -> set[str]:
    """Ids of the waiting events, found by a reader that shares no code with the bridge."""
    payloads = [each["payload"] for each in read(directory, directory / "keys") if "payload" in each]
    return {record_in(bytes.fromhex(each))["headers"]["ce_id"].decode() for each in payloads}


ROWS = (
    Row("D3", "spool damaged while the ingress is down: bits, pages, its end; judged by what is intact", damaged),
    Row("D8", "spool damaged under the running ingress, and everything sent again", damaged_under_it),
)
