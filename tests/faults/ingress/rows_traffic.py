from bridge.settings import HttpSettings
from tests.builders import a_growing_body
from tests.faults.ingress.ledger import Delivery
from tests.faults.ingress.row import Row
from tests.faults.ingress.scene import Scene

BODY_MAX_BYTES: int = HttpSettings.model_fields["body_max_bytes"].default


async def growing(scene: Scene) -> None:
    async with scene.load.open(), scene.load.poisson(scene.tier.rate):
        for number in range(scene.tier.times(25)):
            event_id, key = f"evt_growing_{number}", f"{scene.load.prescriptions.key_mark}g{number}"
            body = a_growing_body(BODY_MAX_BYTES, id=event_id, key=key)
            await scene.load.deliver(Delivery(event_id, key, body), stubborn=True)


ROWS = (Row("K3", "the largest bodies, whose records are four times as large", growing),)
