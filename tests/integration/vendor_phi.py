"""Deliveries of each vendor with a marker in every member that no event needs, and what was seen of them."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp

from bridge.avro.codec import Codec
from bridge.dev.sources import SOURCES, DevSource
from bridge.ingress.profiles import mapped
from bridge.kafka.transport import ConsumedRecord
from bridge.registry.loader import bundled
from tests.integration.ingress_process import IngressProcess, Reply, ask
from tests.integration.phi_documents import Seen

LOCK = bundled()
CODEC = Codec(schemas=LOCK.schemas(), ids=LOCK.ids())
MAPPINGS = Path(mapped.__file__).parent
PROFILES = ("digitalrx_pharmacy", "dosespot_push", "photon_cloudevents")
VENDORS = {source.profile: source for source in SOURCES.values()}
# Both send ids of one system, so they share the prefix by name.
SHARED = {"account_id": "acct_dev", "prefix": "ds:"}
VENDORS["dosespot_push"] = VENDORS["dosespot_push"]._replace(options={**VENDORS["dosespot_push"].options, **SHARED})
MAPPED = VENDORS["dosespot_push"]._replace(
    profile="mapped", options={**SHARED, "mapping": str(MAPPINGS / "dosespot_push.toml")}
)

# What a delivery needs to become an event; every other member gets a marker.
NEEDED = {
    "digitalrx_pharmacy": {"StoreID", "QueueID", "RxStatus"},
    "dosespot_push": {"EventType", "PrescriptionId", "ClinicId", "PrescriptionStatus", "MedicationStatus"},
    "photon_cloudevents": {"type", "id", "source", "time"},
}
# One body of each; the line has all that must go nowhere.
BODIES = {
    "digitalrx_pharmacy": "p03_flat_approved.json",
    "dosespot_push": "p13_dosespot_partial_fill.json",
    "photon_cloudevents": "p16_photon_order_placed.json",
}


@dataclass
class Told(Seen):
    """What was sent, and all that was seen of it by where."""

    run: str = field(default_factory=lambda: uuid4().hex[:12])
    replies: dict[str, Reply] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    records: list[ConsumedRecord] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def source(self, profile: str) -> str:
        return f"{profile.partition('_')[0]}-{self.run}"

    def sender(self, profile: str) -> DevSource:
        return MAPPED if profile == "mapped" else VENDORS[profile]

    def settings(self, directory: Path) -> dict[str, str]:
        """Configure a source for each profile, and one for a mapping that says the same as one of them."""
        found = {"LOG__LEVEL": "debug"}
        for profile in (*PROFILES, "mapped"):
            secrets_dir = directory / f"secrets of {profile}"
            secrets_dir.mkdir(parents=True)
            self.files[profile] = secrets_dir / "current"
            self.files[profile].write_text(self.sender(profile).new_secret())
            settings = self.sender(profile).settings(self.source(profile), secrets_dir)
            found |= {name.removeprefix("BRIDGE_"): value for name, value in settings.items()}
        return found

    def marked(self, profile: str, node: Any) -> Any:
        """Put a marker into each member that is not needed."""
        if isinstance(node, list):
            return [self.marked(profile, child) for child in node]
        if not isinstance(node, dict):
            return node
        return {
            name: self.marked(profile, child)
            if isinstance(child, dict | list)
            else child
            if name in NEEDED[profile]
            else self.text()
            for name, child in node.items()
        }


async def send(session: aiohttp.ClientSession, ingress: IngressProcess, told: Told, profile: str, name: str) -> None:
    body = told.bodies[name]
    url = f"{ingress.url}/webhooks/{told.source(profile)}"
    sender = told.sender(profile)
    sign = sender.signer(told.files[profile])
    headers = {"content-type": sender.content_type, **sign("", int(time.time()), body)}
    told.replies[name] = await ask(session, url, method="POST", data=body, headers=headers)


def value_of(record: ConsumedRecord) -> dict[str, Any]:
    assert record.value is not None
    return dict(CODEC.decode(record.value, record.headers).value)
