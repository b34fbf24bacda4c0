import asyncio

from bridge.dev.files import write_text
from tests.builders import signed_headers
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene
from tests.integration.service_process import until

# Contents left by an editor, a full disk or an unfilled template.
BAD_FILES = {"empty": "", "garbage": "not a secret\n", "half": "whsec_dGhpcyBpcyBvbmx5"}
_RELOADS = "drxbridge_secret_reload_total"


async def rotated(scene: Scene) -> None:
    async with scene.load.poisson(scene.tier.rate):
        await asyncio.sleep(1)
        for _ in range(scene.tier.times(2)):
            dropped = scene.keys.current
            await scene.rotate()
            await _forge_with(scene, dropped)


async def spoiled(scene: Scene) -> None:
    """Replace a key by an invalid file, then add one; the last valid set stays in use."""
    pid = scene.ingress.pid
    async with scene.load.poisson(scene.tier.rate):
        for name, text in BAD_FILES.items():
            bad = scene.ingress.secrets_dir / name
            failed = _failed(scene)
            write_text(bad, text)
            await asyncio.to_thread(until, lambda failed=failed: _failed(scene) > failed, what="a refused set")
            await scene.lasting(1)
            bad.unlink()
        await scene.rotate()
    assert scene.ingress.pid == pid


def _failed(scene: Scene) -> float:
    return scene.ingress.metric(_RELOADS, outcome="failed")


async def _forge_with(scene: Scene, key: bytes) -> None:
    delivery = scene.load.prescriptions.new().deliveries[0]
    headers = signed_headers(delivery.body, webhook_id=delivery.id, key=key)
    attempt = await scene.load.attempt(delivery, "forged", headers)
    assert attempt.status == 401, attempt


ROWS = (
    Row("S1", "secrets rotated, the old ones taken back", rotated),
    Row("S2", "secret files that are empty, garbage, or half written", spoiled),
)
