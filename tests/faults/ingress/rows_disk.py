import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import orjson

from bridge.runtime import failpoints
from tests.faults.ingress.bad_disk import FSYNC, HANG, MOUNT, ONCE
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.service_process import until
from tests.spooling import NAMESPACE

COMMAND = (*NAMESPACE, sys.executable, "-m", "tests.faults.ingress.bad_disk", "serve")
SMALL, LARGER = "size=1m", "size=64m"
# What else is on the small disk: the short tier would take 15 s to fill it.
OTHER_BYTES = 700_000
# Each takes some seconds, so this is for the long tier.
DEATHS = 50
# A kill point, and the number of times that a short drain reaches it at least.
DRAINING = (("drained_before_drop", 3), ("before_positions", 1), ("after_produce", 6))


async def disk_full(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            await _another_life(scene, **{MOUNT: SMALL})
            (_inside(scene) / "other").write_bytes(bytes(OTHER_BYTES))
            scene.brokers.pause()
            await _until_unready(scene, "full")
            await asyncio.sleep(1)
            await asyncio.to_thread(_look_inside, scene)
            await asyncio.to_thread(_remount, scene, LARGER)
            await _until(lambda: takes(scene), what="space that was noticed")
            await asyncio.sleep(1)
            await scene.heal()


async def fsync_fails(scene: Scene) -> None:
    order = scene.directory / "fsync"
    async with scene.load.poisson(scene.tier.rate):
        await _another_life(scene, **{FSYNC: str(order)})
        for _ in range(scene.tier.times(1)):
            scene.brokers.pause()
            await _until(lambda: scene.spooled() > 0, what="something spooled")
            order.write_text(ONCE)
            await _until(lambda: not order.exists(), what="one failure")
            await asyncio.sleep(1)
            assert await asyncio.to_thread(takes, scene)
            order.write_text("always")
            await _until_unready(scene, "io_error")
            await asyncio.sleep(1)
            order.unlink()
            await _until(lambda: takes(scene), what="a disk that is well again")
            await scene.heal()


async def hanging(scene: Scene) -> None:
    """Freeze the brokers briefly, with a disk that hangs for longer: once Kafka is back it must suffice."""
    order = scene.directory / "fsync"
    async with scene.load.poisson(scene.tier.rate):
        await _another_life(scene, **{FSYNC: str(order)})
        for _ in range(scene.tier.times(1)):
            await _until(lambda: takes(scene), what="a disk that is well")
            order.write_text(HANG)
            scene.brokers.pause()
            await _until(lambda: _spooling(scene) > 0 and not takes(scene), what="partitions that wait for the disk")
            scene.brokers.resume()
            await _until(lambda: _spooling(scene) == 0, what="partitions that are direct again")
            assert not await asyncio.to_thread(takes, scene)
            assert (await scene.load.probe()).status == HTTPStatus.OK
            order.unlink()
            await scene.heal()


async def no_disk(scene: Scene) -> None:
    """Start on a read-only disk, then without a key: Kafka alone must suffice; then both work again."""
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            for code, env in (
                ("read_only", {MOUNT: "ro"}),
                ("no_key", {"BRIDGE_SPOOL__KEY_DIR": str(scene.directory / "nowhere")}),
            ):
                await _another_life(scene, **env)
                assert await asyncio.to_thread(checks, scene) == (HTTPStatus.OK, "degraded"), code
                await asyncio.sleep(1)
                scene.brokers.pause()
                await _until_unready(scene, code)
                await asyncio.sleep(1)
                await scene.heal()
            await _another_life(scene)
            await scene.heal()


async def key_gone(scene: Scene) -> None:
    """Remove the key's file in an outage: 503 instead of 202 until it is back; remove it again, and kill.

    Then it is restored while the new process, which never had it, runs.
    """
    key = Path(_directory(scene)) / "keys" / "current"
    vault = scene.directory / "vault"
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(scene.tier.times(1)):
            scene.brokers.pause()
            await _until(lambda: scene.spooled() > 0, what="something spooled")
            key.rename(vault)
            await _nothing_is_spooled(scene)
            vault.rename(key)
            await _until(lambda: takes(scene), what="a key that was noticed")
            await scene.lasting(1)
            key.rename(vault)
            await _nothing_is_spooled(scene)
            spooled = await asyncio.to_thread(scene.spooled)
            await scene.cut_short()
            await asyncio.to_thread(scene.ingress.live)
            await _nothing_is_spooled(scene)
            assert scene.ingress.metric("drxbridge_spool_locked_records") >= spooled
            vault.rename(key)
            await _until(lambda: not scene.ingress.metric("drxbridge_spool_locked_records"), what="records unlocked")
            await scene.heal()


async def _nothing_is_spooled(scene: Scene) -> None:
    await _until_unready(scene, "no_key")
    spooled = await asyncio.to_thread(scene.spooled)
    await scene.lasting(2)
    assert await asyncio.to_thread(scene.spooled) == spooled, "an answer 202 without a key on disk"


async def drain_killed(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        for _ in range(DEATHS):
            scene.brokers.pause()
            point, most = scene.rng.choice(DRAINING)
            await _another_life(scene, **{failpoints.VARIABLE: f"{point}:kill@{scene.rng.randint(1, most)}"})
            await asyncio.sleep(scene.rng.uniform(0.5, 1.5))
            scene.brokers.resume()
            await asyncio.to_thread(scene.ingress.ended)
        await scene.heal()


def takes(scene: Scene) -> bool:
    return scene.ingress.metric("drxbridge_spool_available") == 1


def _spooling(scene: Scene) -> float:
    return scene.ingress.metric("drxbridge_spooling_partitions")


def checks(scene: Scene) -> tuple[int, str]:
    status, body = scene.ingress.asked("/readyz")
    return status, orjson.loads(body)["checks"]["spool"]


async def _another_life(scene: Scene, **env: str) -> None:
    if scene.ingress.alive:
        await asyncio.to_thread(scene.ingress.kill)
    scene.ingress.start(**env)
    await asyncio.to_thread(scene.ingress.ready)


async def _until_unready(scene: Scene, code: str) -> None:
    """An outage of Kafka is noticed after some seconds; only then does readiness depend on the disk."""
    wanted = (HTTPStatus.SERVICE_UNAVAILABLE, code)
    await _until(lambda: checks(scene) == wanted, what=f"a probe that says {code}")


async def _until(found: Callable[[], bool], *, what: str) -> None:
    await asyncio.to_thread(until, found, what=what)


def _directory(scene: Scene) -> str:
    return scene.ingress.env["BRIDGE_SPOOL__DIR"]


def _inside(scene: Scene) -> Path:
    return Path(f"/proc/{scene.ingress.pid}/root{_directory(scene)}")


def _remount(scene: Scene, options: str) -> None:
    user = [] if os.geteuid() == 0 else ["--user", "--preserve-credentials"]
    enter = ["nsenter", "--target", str(scene.ingress.pid), "--mount", *user]
    subprocess.run([*enter, "mount", "-o", f"remount,{options}", _directory(scene)], check=True)  # noqa: S603 - a test's own


def _look_inside(scene: Scene) -> None:
    files = [path for path in _inside(scene).rglob("*") if path.is_file()]
    assert any(path.suffix == ".segment" for path in files)
    scene.leaks += [path.name for path in files if scene.shown_in(path.read_bytes())]


ROWS = (
    Row("D1", "spool on a full disk of 1 MiB, brokers frozen", disk_full, command=COMMAND),
    Row("D2", "fsync of the spool fails once, then always, brokers frozen", fsync_fails, command=COMMAND),
    Row("D4", "spool on a read-only disk, then without its key", no_disk, command=COMMAND),
    Row("D6", "key of the spool removed in an outage, then a kill; the key put back later", key_gone),
    Row("D7", "disk hangs in a short outage, and for longer", hanging, command=COMMAND),
    Row("D5", "drain killed 50 times", drain_killed, short=False),
)
