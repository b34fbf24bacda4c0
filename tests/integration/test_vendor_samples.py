"""Each vendor through the whole ingress with its scheme: health information is in the values of records alone.

A real socket, a real process, a real broker; what comes out is read back from the topics.
"""

from __future__ import annotations

import asyncio
import copy
import json
import re
import signal
import time
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from bridge.avro.codec import Codec
from bridge.dev.sources import SOURCES, DevSource
from bridge.ingress.profiles import mapped
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.kafka.transport import ConsumedRecord
from bridge.registry.loader import bundled
from tests.builders import SAMPLES
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, ask, header, read_records
from tests.integration.phi_documents import Seen, texts
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka

LOCK = bundled()
CODEC = Codec(schemas=LOCK.schemas(), ids=LOCK.ids())
NO_KAFKA = "127.0.0.1:9"
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
NEVER = re.compile(r"SSN|Employer.*|DateOfInjury|Insurance")
# One body of each; the line has all that must go nowhere.
BODIES = {
    "digitalrx_pharmacy": "p03_flat_approved.json",
    "dosespot_push": "p13_dosespot_partial_fill.json",
    "photon_cloudevents": "p16_photon_order_placed.json",
}


@dataclass
class Told(Seen):
    """What was sent, and all that was seen of it by where.

    Attributes:
        never: Those of the markers that may stand nowhere but in the copy of a parked body.
    """

    run: str = field(default_factory=lambda: uuid4().hex[:12])
    never: set[str] = field(default_factory=set)
    replies: dict[str, Reply] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    records: list[ConsumedRecord] = field(default_factory=list)
    secrets: dict[str, str] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)

    def source(self, profile: str) -> str:
        return f"{profile.partition('_')[0]}-{self.run}"

    def records_of(self, name: str) -> list[ConsumedRecord]:
        digest = sha256(self.bodies[name]).hexdigest()
        return [record for record in self.records if header(record, "drx_body_sha256") == digest]

    def sender(self, profile: str) -> DevSource:
        return MAPPED if profile == "mapped" else VENDORS[profile]

    def settings(self, directory: Path) -> dict[str, str]:
        """Configure a source for each profile, and one for a mapping that says the same as one of them."""
        found = {"LOG__LEVEL": "debug"}
        for profile in (*PROFILES, "mapped"):
            secrets_dir = directory / f"secrets of {profile}"
            secrets_dir.mkdir(parents=True)
            self.files[profile] = secrets_dir / "current"
            self.files[profile].write_text(self.secrets.setdefault(profile, self.sender(profile).new_secret()))
            settings = self.sender(profile).settings(self.source(profile), secrets_dir)
            found |= {name.removeprefix("BRIDGE_"): value for name, value in settings.items()}
        return found

    def marked(self, profile: str, node: Any, *, never: bool = False) -> Any:
        """Put a marker into each member that is not needed; `never` if none of them may be in any event."""
        if isinstance(node, list):
            return [self.marked(profile, child, never=never) for child in node]
        if not isinstance(node, dict):
            return node
        out: dict[str, Any] = {}
        for name, child in node.items():
            nowhere = never or bool(NEVER.fullmatch(name))
            if isinstance(child, dict | list):
                out[name] = self.marked(profile, child, never=nowhere)
            elif name in NEEDED[profile]:
                out[name] = child
            else:
                out[name] = self.text()
                self.never |= {out[name]} if nowhere else set()
        return out


def headers_of(told: Told, profile: str, body: bytes) -> dict[str, str]:
    sender = told.sender(profile)
    sign = sender.signer(told.files[profile])
    return {"content-type": sender.content_type, **sign("", int(time.time()), body)}


async def send(session: aiohttp.ClientSession, ingress: IngressProcess, told: Told, profile: str, name: str) -> None:
    body = told.bodies[name]
    url = f"{ingress.url}/webhooks/{told.source(profile)}"
    headers = headers_of(told, profile, body)
    told.replies[name] = await ask(session, url, method="POST", data=body, headers=headers)


@pytest.fixture(scope="module")
def told(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Told:
    Topics(cluster.bootstrap_servers).standard()
    told = Told()
    directory, stranded_in = tmp_path_factory.mktemp("with_kafka"), tmp_path_factory.mktemp("without_kafka")
    with (
        IngressProcess(directory, cluster.bootstrap_servers, **told.settings(directory)) as ingress,
        IngressProcess(stranded_in, NO_KAFKA, **told.settings(stranded_in)) as stranded,
    ):
        ingress.ready()
        stranded.live()
        asyncio.run(play(told, ingress, stranded))
    told.seen["disk"] = "\n".join(
        f"{path.name} {path.read_bytes().decode('latin-1')}"
        for path in sorted((stranded_in / "spool").rglob("*"))
        if path.is_file()
    )
    return told


async def play(told: Told, ingress: IngressProcess, stranded: IngressProcess) -> None:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        for profile, file in BODIES.items():
            sample = json.loads((SAMPLES / "profiles" / file).read_bytes())
            for name, where in ((f"marked {profile}", ingress), (f"away {profile}", stranded)):
                document = told.marked(profile, sample)
                if "specversion" in document:
                    # The same id with another body would be a conflict.
                    document["id"] = f"ce-{told.run}-{where.instance}"
                told.bodies[name] = json.dumps(document).encode()
                await send(session, where, told, profile, name)
            await park_and_refuse(session, ingress, told, profile, told.marked(profile, copy.deepcopy(sample)))
        for name, one in (("with kafka", ingress), ("without kafka", stranded)):
            for path in ("metrics", "readyz"):
                reply = await ask(session, f"{one.management_url}/{path}")
                told.seen[f"{path} {name}"] = f"{reply.body.decode()} {reply.headers}"
        told.seen["answers"] = "\n".join(f"{reply.body!r} {reply.headers}" for reply in told.replies.values())
        told.records = await read_records(ingress.bootstrap_servers, lambda source: told.run in source)
    assert await ingress.end() == 0
    # A crash: what was taken without Kafka is on disk.
    assert await stranded.end(signal.SIGKILL) == -signal.SIGKILL
    told.seen |= {"output": ingress.output(), "output without kafka": stranded.output()}


async def park_and_refuse(
    session: aiohttp.ClientSession, ingress: IngressProcess, told: Told, profile: str, document: Any
) -> None:
    """Send a document that parks for its key, one that is no JSON, and one with a wrong signature."""
    text = json.dumps(document)
    for name in ("QueueID", "PrescriptionId"):
        text = text.replace(f'"{name}":', f'"No{name}":')
    if profile == "photon_cloudevents":
        text = text.replace('"prescription":', '"noprescription":')
    told.bodies[f"parked {profile}"] = text.encode()
    told.bodies[f"malformed {profile}"] = text[:-1].encode()
    for name in (f"parked {profile}", f"malformed {profile}"):
        await send(session, ingress, told, profile, name)
    body = json.dumps(document).encode()
    forged = {name: value[:-4] + "AAAA" for name, value in headers_of(told, profile, body).items()}
    forged["content-type"] = told.sender(profile).content_type
    url = f"{ingress.url}/webhooks/{told.source(profile)}"
    told.replies[f"refused {profile}"] = await ask(session, url, method="POST", data=body, headers=forged)


def test_every_delivery_met_the_end_that_was_meant_for_it(told: Told) -> None:
    ends = {name: (reply.status, reply.json["outcome"]) for name, reply in told.replies.items()}

    assert ends == {
        f"{kind} {profile}": end
        for profile in PROFILES
        for kind, end in (
            ("marked", (200, "accepted")),
            ("away", (202, "spooled")),
            ("parked", (202, "parked")),
            ("malformed", (202, "parked")),
            ("refused", (401, "refused")),
        )
    }
    assert "spool" in told.seen["readyz without kafka"]
    assert len(told.markers - told.never) > 50
    assert len(told.never) > 10


@pytest.mark.parametrize("profile", PROFILES)
def test_what_is_marked_is_in_values_alone(told: Told, profile: str) -> None:
    records = told.records_of(f"marked {profile}")
    markers = told.of(told.bodies[f"marked {profile}"].decode()) - told.never
    values = "\n".join(text for record in records for text in texts(value_of(record)))

    # Of CloudEvents the envelope's own words are no one's.
    assert {each for each in markers if each not in values} <= envelope(told, profile)
    assert not [each for each in told.never if each in values]


def envelope(told: Told, profile: str) -> set[str]:
    if profile != "photon_cloudevents":
        return set()
    document = json.loads(told.bodies[f"marked {profile}"])
    return {document["subject"], document["specversion"]}


def test_no_marker_is_seen_outside_of_values(told: Told) -> None:
    told.seen["headers"] = repr([record.headers for record in told.records])

    assert told.seen["disk"]
    assert told.leaks() == {}


@pytest.mark.parametrize("profile", PROFILES)
def test_a_parked_body_is_kept_byte_for_byte(told: Told, profile: str) -> None:
    for name in (f"parked {profile}", f"malformed {profile}"):
        (record,) = told.records_of(name)

        assert record.topic == UNRECOGNIZED_TOPIC
        assert value_of(record)["body"] == told.bodies[name]


def value_of(record: ConsumedRecord) -> dict[str, Any]:
    assert record.value is not None
    return dict(CODEC.decode(record.value, record.headers).value)
