"""Health information in exceptions, on disk and in a crash stays in record values."""

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.dev.sources import SOURCES
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.builders import SAMPLES, a_delivery
from tests.cluster import Topics
from tests.integration.consumer_process import ConsumerProcess, drx_consumer, install_code
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, read_records, value_of
from tests.integration.phi_documents import Marked, Seen
from tests.integration.phi_faults import PLACES, VARIABLE, VENDOR_PLACES
from tests.integration.service_process import HANG_S, ServiceProcess, until
from tests.originals import encoded
from tests.postgres import execute
from tests.prescriptions import native
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

# Nobody listens on it.
NO_KAFKA = "127.0.0.1:9"
NOWHERE = "nowhere "
# Twice the deadline of an answer: at a place whose failure is answered by nothing, nothing more is sent then.
REQUEST_S = 2.0
# What was never answered is in flight for ever; more than the deadline of an answer.
GRACE_S = "6"
SETTINGS = {"LOG__LEVEL": "debug", "HTTP__DEADLINE_S": "1"}


def look_at(process: ServiceProcess, seen: Seen) -> None:
    seen.seen |= {path: process.asked(path)[1].decode() for path in ("/metrics", "/readyz")}


async def send_all(session: aiohttp.ClientSession, ingress: IngressProcess, seen: Seen, name: str) -> str:
    """Send deliveries to be accepted, parked for content and for id, and refused; return the responses."""
    body, other = (json.dumps(seen.document(name).document).encode() for _ in range(2))
    answers = []
    for webhook_id, content, headers in (
        (name, body, {}),
        (name, other, {}),
        (f"{name}-parked", body.replace(b'"version": "1"', b'"version": "%s"' % seen.text().encode()), {}),
        (f"{name}-refused", body, {"webhook_signature": f"v1,{seen.text()}"}),
    ):
        try:
            async with asyncio.timeout(REQUEST_S):
                reply = await deliver(session, ingress, content, webhook_id=webhook_id, **headers)
            answers.append(f"{reply.body!r} {reply.headers}")
        except aiohttp.ClientError as exc:
            answers.append(type(exc).__name__)
        except TimeoutError:
            break
    return "\n".join(answers)


async def test_an_exception_at_any_place_says_nothing_that_it_holds(kafka: str, tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.write_text(NOWHERE)
    seen = Seen()
    settings = SETTINGS | {"SHUTDOWN__GRACE_S": GRACE_S}
    with IngressProcess(tmp_path, kafka, command=failing_serve(fault), **settings) as ingress:
        await asyncio.to_thread(ingress.ready)
        for number, place in enumerate(PLACES):
            async with aiohttp.ClientSession() as session:
                fault.write_text(f"{place} {seen.text()}")
                seen.seen[f"answers at {place}"] = await send_all(session, ingress, seen, f"evt_{number}")
                fault.write_text(NOWHERE)
            if not ingress.alive:
                ingress.start()
            await asyncio.to_thread(ingress.live)
        look_at(ingress, seen)
        await ingress.end()
        seen.seen["output"] = ingress.output()

    hits = fault.with_suffix(".hits").read_text().splitlines()
    assert set(PLACES) - set(hits) == set()
    assert len(set(hits)) >= 30
    assert seen.leaks() == {}
    assert "Traceback" not in seen.seen["output"]
    answers = "".join(seen.seen.values())
    assert {
        reason for reason in ("id_conflict", "unexpected", "unusable") if f'"reason":"{reason}"' not in answers
    } == set()


VENDORS = {source.profile: source for source in SOURCES.values()}
MAPPED = VENDORS["dosespot_push"]._replace(profile="mapped")

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
# Each field gets what its expression cannot take; what JMESPath complains about stands in its message.
RAISING = """
prefix = "acme:"
account = "sum(DrugName)"
[[event]]
when = "StoreID"
type = "fulfillment.status_changed"
key = "QueueID"
time = "instant(DrugName)"
correlation = "join(DrugName, DrugName)"
[event.data]
queue_id = "QueueID"
fulfillment_status = "not_null(RxStatus, DrugName)"
lot_number = "max([DrugName, `1`])"
raw_status = "sort([DrugName, `1`])"
patient_pay = "ceil(DrugName)"
active = "truth(DrugName)"
pharmacy_rx_number = "avg(Patient.*)"
[[event]]
when = "starts_with(DrugName, `1`)"
type = "system.ping"
key = "QueueID"
"""


# Before the proof there is nothing to keep, so the vendor comes again.
UNPROVED = (
    "bridge.proof.schemes.shared_secret:SecretHeader.verify",
    "bridge.proof.schemes.signed_text:SignedHeader.verify",
    "bridge.proof.schemes.body_hmac:BodyHmac.verifier",
    "bridge.known.derived_ids:NewestBodies.new_id",
)
# What a function of a mapping file raises means that its argument says nothing: the event is of the account.
UNFIT = "bridge.mapping.mapped_functions:text_of_id"


@dataclass
class Told(Seen):
    run: str = field(default_factory=lambda: uuid4().hex[:12])
    replies: dict[str, Reply] = field(default_factory=dict)
    bodies: dict[str, bytes] = field(default_factory=dict)
    records: list[ConsumedRecord] = field(default_factory=list)
    files: dict[str, Path] = field(default_factory=dict)

    def source(self, profile: str) -> str:
        return f"{profile.partition('_')[0]}-{self.run}"

    def settings(self, directory: Path) -> dict[str, str]:
        found = {"LOG__LEVEL": "debug"}
        for profile in NEEDED:
            secrets_dir = directory / f"secrets of {profile}"
            secrets_dir.mkdir(parents=True)
            self.files[profile] = secrets_dir / "current"
            self.files[profile].write_text(VENDORS[profile].new_secret())
            settings = VENDORS[profile].settings(self.source(profile), secrets_dir)
            found |= {name.removeprefix("BRIDGE_"): value for name, value in settings.items()}
        return found

    def marked(self, profile: str, node: Any) -> Any:
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
    sender = VENDORS[profile]
    sign = sender.signer(told.files[profile])
    headers = {"content-type": sender.content_type, **sign("", int(time.time()), body)}
    told.replies[name] = await ask(session, url, method="POST", data=body, headers=headers)


async def test_an_exception_in_the_dialect_of_a_vendor_says_nothing_that_it_holds(kafka: str, tmp_path: Path) -> None:
    """Also in an expression of a mapping file, or in what reads one."""
    fault, told = tmp_path / "fault", Told()
    fault.write_text(NOWHERE)
    raising = f"raising-{told.run}"
    with IngressProcess(tmp_path, kafka, command=failing_serve(fault), **vendors(told, tmp_path, raising)) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            for profile, places in VENDOR_PLACES.items():
                for number, place in enumerate(places):
                    told.bodies[place] = marked_body(told, profile, number)
                    fault.write_text(f"{place} {told.text()}")
                    await send(session, ingress, told, profile, place)
                    fault.write_text(NOWHERE)
            for profile in NEEDED:
                told.bodies[f"sound {profile}"] = marked_body(told, profile, len(told.bodies))
                await send(session, ingress, told, profile, f"sound {profile}")
            body = told.bodies[raising] = marked_body(told, "digitalrx_pharmacy", 0)
            url = f"{ingress.url}/webhooks/{raising}"
            headers = {"content-type": "application/json", **MAPPED.signer(told.files[raising])("", 0, body)}
            told.replies[raising] = await ask(session, url, method="POST", data=body, headers=headers)
        look_at(ingress, told)
        unfit = ingress.metric("drxbridge_lenient_fields_total", flag="field_unfit")
        told.records = await read_records(kafka, lambda source: told.run in source)
        await ingress.end()
        told.seen["output"] = ingress.output()
    told.seen["answers"] = "\n".join(f"{reply.body!r} {reply.headers}" for reply in told.replies.values())
    told.seen["headers"] = repr([record.headers for record in told.records])

    sound = {f"sound {profile}" for profile in NEEDED}
    ends = {name: reply.json.get("reason") or reply.json["outcome"] for name, reply in told.replies.items()}
    assert told.leaks() == {}
    assert set(fault.with_suffix(".hits").read_text().split()) == ends.keys() - {raising} - sound
    assert ends == dict.fromkeys(ends, "unexpected") | dict.fromkeys(UNPROVED, "unavailable") | {
        UNFIT: "accepted",
        raising: "accepted",
    } | dict.fromkeys(sound, "accepted")
    bodies = [value_of(record)["body"] for record in told.records if record.topic == UNRECOGNIZED_TOPIC]
    assert sorted(bodies) == sorted(
        told.bodies[each] for each in ends if each not in (*UNPROVED, UNFIT, raising, *sound)
    )
    assert unfit >= 1


def failing_serve(fault: Path) -> list[str]:
    command = [sys.executable, "-m", "tests.integration.phi_faults", "bridge", "serve"]
    return ["env", f"{VARIABLE}={fault}", *command]


def vendors(told: Told, directory: Path, raising: str) -> dict[str, str]:
    """Configure a source for each vendor, and `raising` with a mapping file whose expressions cannot be evaluated."""
    found = told.settings(directory)
    file = directory / "raising.toml"
    file.write_text(RAISING)
    secrets_dir = directory / "secrets of raising"
    secrets_dir.mkdir()
    told.files[raising] = secrets_dir / "current"
    told.files[raising].write_text(MAPPED.new_secret())
    sender = MAPPED._replace(options={"mapping": str(file), "account_id": "acct_dev"})
    own = sender.settings(raising, secrets_dir)
    return found | {name.removeprefix("BRIDGE_"): value for name, value in own.items()}


def marked_body(told: Told, profile: str, number: int) -> bytes:
    document = told.marked(profile, json.loads((SAMPLES / "profiles" / BODIES[profile]).read_bytes()))
    if "specversion" in document:
        document["id"] = f"ce-{told.run}-{number}"
    return json.dumps(document).encode()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory of its own, which is also that of temporary files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return scratch


def content_of(directory: Path) -> str:
    return "\n".join(
        f"{path.relative_to(directory)} {path.read_bytes().decode('latin-1') if path.is_file() else ''}"
        for path in sorted(directory.rglob("*"))
    )


async def test_a_crash_leaves_nothing_but_what_is_sealed(tmp_path: Path, scratch: Path) -> None:
    """While Kafka is away: what was taken is on disk, in files whose names and bytes say nothing."""
    seen = Seen()
    with IngressProcess(tmp_path / "run", NO_KAFKA, **SETTINGS) as ingress:
        await asyncio.to_thread(ingress.live)
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            for each in range(5):
                seen.seen["answers"] = await send_all(session, ingress, seen, f"evt_{each}")
        process = Path(f"/proc/{ingress.pid}")
        seen.seen["title"] = (process / "cmdline").read_text() + (process / "comm").read_text()
        assert "Max core file size" in (process / "limits").read_text()
        assert (process / "limits").read_text().split("Max core file size")[1].split()[0] in {"0", "1"}
        assert await ingress.end(signal.SIGSEGV) == -signal.SIGSEGV

    seen.seen["spool and output"] = content_of(tmp_path / "run")
    seen.seen["scratch"] = content_of(scratch)
    assert "spool/" in seen.seen["spool and output"]
    assert seen.leaks() == {}
    assert "core" not in seen.seen["scratch"]


def write(kafka: str, topic: str, seen: Seen, event_types: Iterable[str]) -> list[Marked]:
    made = [seen.document(f"evt_{number}", event_type=each) for number, each in enumerate(event_types)]
    events = [native(json.dumps(each.document).encode()) for each in made]
    fill(kafka, [encoded(event, a_delivery(id=event.id))._replace(topic=topic) for event in events])
    return made


CONSUMER = """
from consumers.api import Consumer, Lanes
from tests.integration.phi_faults import failures

async def handle(event, context):
    number, text = int(event.id.rpartition("_")[2]), repr(event.value)
    if number == 8:  # what PostgreSQL complains about stands in its message
        await context.connection.execute("select cast('%s' as integer)" % event.key)
    if number == 9:
        event.value["no such field"][event.key]
    raise failures(event.key, text)[number]

consumer = Consumer(name="desk", topics=["{topic}"], mode=Lanes(4, transactional=True), handle=handle, group="{topic}")
"""
HANDLED = 10
PARKED = "select count(*) from drx_consumer.parked_key where key like 'PHI%'"
ROWS = """
select row_to_json(p)::text from drx_consumer.parked_key as p
union all
select (to_jsonb(p) - 'value')::text from drx_consumer.parked_event as p
"""


async def test_a_handler_that_fails_with_an_event_in_its_exception_leaves_it_in_the_parked_value(
    kafka: str, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    seen, topic = Seen(), topics.fresh()
    keys = {each.key for each in write(kafka, topic, seen, ["prescription.created"] * HANDLED)}
    env = install_code(tmp_path / "package", "desk", CONSUMER.format(topic=topic))
    with ConsumerProcess(tmp_path, "desk", bootstrap_servers=kafka, dsn=postgres, env=env, LOG__LEVEL="debug") as desk:
        desk.ready()
        # The one that fails with an `OSError` waits for as long as it does: the sink may be away.
        until(lambda: execute(postgres, PARKED) == [[(HANDLED - 1,)]], what="all others parked")
        look_at(desk, seen)
        for command in ("resume --reason drill", "retry --all --reason drill"):
            verb, *options = command.split()
            code, _, seen.seen[f"stderr of {verb}"] = await drx_consumer(desk.env, "parked", verb, "desk", *options)
            assert code in {0, 2}
        assert await desk.end() == 0
        seen.seen["output"] = desk.output()
    assert seen.leaks() == {}

    # Where the key may stand, nothing else of the event does.
    seen.markers -= keys
    (rows,) = execute(postgres, ROWS)
    assert len(rows) == 2 * (HANDLED - 1)
    seen.seen = {"rows": "\n".join(row for (row,) in rows)}
    _, seen.seen["list"], _ = await drx_consumer(desk.env, "parked", "list", "desk")
    _, seen.seen["show"], _ = await drx_consumer(desk.env, "parked", "show", "desk", min(keys))
    assert seen.leaks() == {}
    _, shown, _ = await drx_consumer(desk.env, "parked", "show", "desk", min(keys), "--show-phi")
    assert sum(marker in shown for marker in seen.markers) > 10


async def test_the_read_model_keeps_what_it_applies_in_its_tables(
    kafka: str, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    seen, topic = Seen(), topics.fresh()
    write(kafka, topic, seen, EVENT_MODELS)
    settings: dict[str, Any] = {"LOG__LEVEL": "debug", "READ_MODEL__TOPICS": topic}
    with ConsumerProcess(tmp_path, "read_model", bootstrap_servers=kafka, dsn=postgres, **settings) as reader:
        applied = "select count(*) from drx_consumer.inbox"
        reader.ready()
        until(lambda: execute(postgres, applied) == [[(len(EVENT_MODELS),)]], what="all of it applied")
        look_at(reader, seen)
        assert await reader.end() == 0
        seen.seen["output"] = reader.output()

    assert seen.leaks() == {}


def test_a_marker_on_disk_would_be_found(tmp_path: Path) -> None:
    seen = Seen()
    (tmp_path / seen.text()).write_bytes(b"\xff" + seen.text().encode())
    seen.seen["disk"] = content_of(tmp_path)

    assert seen.leaks() == {"disk": seen.markers}
    assert os.fspath(tmp_path) not in seen.seen["disk"]
