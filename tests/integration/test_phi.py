"""Health information reaches record values and nothing else: whatever becomes of a delivery, at the most talkative log.

Each document carries a marker of its own in every field of class D and L, in words outside enums, and in names and
values that the contract does not know.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import aiohttp
import pytest

from bridge.contract.events import EVENT_MODELS
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.runtime.log_ids import read_id_keys
from bridge.runtime.logging import id_hash
from tests.builders import signed_headers
from tests.cluster import Cluster, Topics
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, header, value_of
from tests.integration.phi_documents import Marked, Seen, texts
from tests.integration.service_process import HANG_S

pytestmark = pytest.mark.kafka

DEBUG = {"LOG__LEVEL": "debug"}
# Nobody listens on it.
NO_KAFKA = "127.0.0.1:9"

# Reason and detail of a park, and the edit of a marked document that leads to it; `…` stands for another marker.
PARKED: Mapping[str, tuple[str, str, str]] = {
    "duplicate_key": ("malformed_json", '"version": "1"', '"version": "…", "version": "…"'),
    "syntax": ("malformed_json", '"version": "1"', '"version": …'),
    "trailing": ("malformed_json", '"id":', '"trailing": true, "id":'),
    "number_range": ("malformed_json", '"version": "1"', '"version": 1e999'),
    "": ("unknown_type", '"type": "prescription.created"', '"type": "…, …"'),
    "elsewhere": ("environment_mismatch", '"environment": "sandbox"', '"environment": "…"'),
    "bad_id": ("unusable", '"id": "evt_bad_id"', '"id": {"…": "…"}'),
    "bad_time": ("unusable", '"timestamp": "2026-09-14T15:10:03Z"', '"timestamp": "…"'),
    "bad_version": ("unusable", '"version": "1"', '"version": "…"'),
    "bad_key": ("unusable", '"prescription_id": "', '"prescription_id": "…, …'),
    "no_key": ("unusable", '"prescription_id": "', '"prescription": "'),
    "missing_field": ("unusable", '"last_name": "', '"family_name": "'),
    "wrong_type": ("unusable", '"date_of_birth": "', '"date_of_birth": "… '),
    "out_of_range": ("unusable", '"refills": 1', '"refills": 111111'),
}


@dataclass
class Narrator(Seen):
    """Sends marked deliveries to an ingress and stores what became of them, each by its webhook id.

    `parked` has exact bodies; `hash_id` hashes ids as the ingress that had Kafka does in its log.
    """

    ingress: IngressProcess = field(kw_only=True)
    session: aiohttp.ClientSession = field(kw_only=True)
    hash_id: Callable[[str], str] = field(kw_only=True)
    replies: dict[str, Reply] = field(default_factory=dict)
    accepted: dict[str, Marked] = field(default_factory=dict)
    parked: dict[str, bytes] = field(default_factory=dict)
    records: dict[str, ConsumedRecord] = field(default_factory=dict)

    async def deliver(self, webhook_id: str, body: bytes, **headers: str) -> None:
        reply = await deliver(self.session, self.ingress, body, webhook_id=webhook_id, **headers)
        self.replies[webhook_id] = reply
        self.note(reply)

    def note(self, reply: Reply) -> None:
        self.seen[f"answer {len(self.seen)}"] = f"{reply.body!r} {reply.headers}"

    async def raw(self, url: str, request: bytes) -> None:
        """Send bytes that no client library would, and note what comes back."""
        reader, writer = await asyncio.open_connection(*url.removeprefix("http://").split(":"))
        writer.write(request)
        writer.write_eof()
        self.seen[f"answer {len(self.seen)}"] = repr(await reader.read())
        writer.close()


@pytest.fixture(scope="module")
def aftermath(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Narrator]:
    Topics(cluster.bootstrap_servers).standard()
    keys = tmp_path_factory.mktemp("log_ids")
    (keys / "current").write_text("a key for ids in logs, of 32 characters or more")
    settings = DEBUG | {"LOG__ID_KEY_DIR": str(keys)}
    with (
        IngressProcess(tmp_path_factory.mktemp("with_kafka"), cluster.bootstrap_servers, **settings) as ingress,
        IngressProcess(tmp_path_factory.mktemp("without_kafka"), NO_KAFKA, **DEBUG) as stranded,
    ):
        ingress.ready()
        stranded.live()
        yield asyncio.run(_play(ingress, stranded, hash_id=partial(id_hash, key=read_id_keys(keys)[0].key)))


async def _play(ingress: IngressProcess, stranded: IngressProcess, *, hash_id: Callable[[str], str]) -> Narrator:
    async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
        told = Narrator(ingress=ingress, session=session, hash_id=hash_id)
        await _succeed(told)
        await _park(told)
        await _be_refused(told)
        await _be_malformed(told)
        told.ingress = stranded
        for event_type in EVENT_MODELS:
            document = told.document(f"evt_away_{event_type}", event_type=event_type).document
            await told.deliver(f"evt_away_{event_type}", json.dumps(document).encode())
        told.records = {header(record, "ce_id"): record for record in await ingress.records()}
        for name, one in (("with kafka", ingress), ("without kafka", stranded)):
            for path in ("metrics", "readyz", "livez"):
                reply = await ask(session, f"{one.management_url}/{path}")
                told.seen[f"{path} {name}"] = f"{reply.body.decode()} {reply.headers}"
            assert await one.end() == 0
            told.seen[f"output {name}"] = one.output()
    return told


async def _succeed(told: Narrator) -> None:
    for event_type in EVENT_MODELS:
        marked = told.accepted[f"evt_{event_type}"] = told.document(f"evt_{event_type}", event_type=event_type)
        await told.deliver(f"evt_{event_type}", json.dumps(marked.document).encode(), user_agent=told.text())


async def _park(told: Narrator) -> None:
    for detail, (_, old, new) in PARKED.items():
        event_id = f"evt_{detail}"
        text = json.dumps(told.document(event_id).document)
        assert old in text
        while "…" in new:
            new = new.replace("…", told.text(), 1)  # noqa: PLW2901 - one marker after the other
        text = text.replace(old, new)
        body = told.parked[event_id] = (text + told.text() if detail == "trailing" else text).encode()
        await told.deliver(event_id, body, user_agent=told.text())


async def _be_refused(told: Narrator) -> None:
    """Check that id and path of an unverified delivery appear nowhere."""
    body = json.dumps(told.document("evt_forged").document).encode()
    await told.deliver(told.text(), body, webhook_signature=f"v1,{told.text()}")
    await told.deliver(told.text(), body, webhook_timestamp=told.text())
    await told.deliver(told.text(), body, content_type=f"text/{told.text()}")
    await told.deliver(told.text(), body, content_encoding=told.text())
    await told.deliver(told.text(), body + b" " * 300_000)
    genuine = signed_headers(body) | {"authorization": told.text(), "cookie": told.text(), "x-patient": told.text()}
    for path in (f"/webhooks/{told.text()}", f"/{told.text()}", f"{told.text()}?{told.text()}={told.text()}"):
        url = f"{told.ingress.url}/{path.lstrip('/')}"
        told.note(await ask(told.session, url, method="POST", data=body, headers=genuine))
    told.note(await ask(told.session, told.ingress.webhook_url, method=told.text(), params={told.text(): told.text()}))


async def _be_malformed(told: Narrator) -> None:
    text = told.text().encode()
    path = b"POST /webhooks/" + told.ingress.source.encode()
    for request in (
        path + b" HTTP/1.1\r\nBad Header " + text + b"\r\n\r\n",
        path + b" HTTP/1.1\r\nHost: x\r\nX: " + text * 900 + b"\r\n\r\n",
        path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + text + b"\r\n",
        path + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: " + text + b"\r\n\r\n",
        path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: " + text + b"\r\n\r\n",
        path + b" " + text + b"\r\n\r\n",
        b"POST /" + text * 900 + b" HTTP/1.1\r\n\r\n",
        b"POST http://[" + text + b" HTTP/1.1\r\nHost: " + text + b"\r\n\r\n",
        text + b"\r\n\r\n",
        b"\x16\x03\x01" + text,
    ):
        for url in (told.ingress.url, told.ingress.management_url):
            await told.raw(url, request)


def test_every_document_met_the_end_that_was_meant_for_it(aftermath: Narrator) -> None:
    """Else the other tests of this module would prove less than they say."""
    outcomes = {each: (reply.status, reply.json.get("reason", "")) for each, reply in aftermath.replies.items()}

    assert {each: outcomes[each] for each in aftermath.accepted} == dict.fromkeys(aftermath.accepted, (200, ""))
    assert {each: outcomes[each] for each in aftermath.parked} == {
        f"evt_{detail}": (202, reason) for detail, (reason, _, _) in PARKED.items()
    }
    details = {each: value_of(aftermath.records[each])["detail"] for each in aftermath.parked}
    assert {f"evt_{detail}": detail for detail in PARKED if detail != "elsewhere"} | {"evt_elsewhere": ""} == details
    assert {status for each, (status, _) in outcomes.items() if each.startswith("evt_away_")} == {202}
    assert {status for each, (status, _) in outcomes.items() if each.startswith("PHI")} == {401, 413, 415}


def test_no_marker_is_seen_in_output_metrics_probes_or_answers(aftermath: Narrator) -> None:
    assert aftermath.leaks() == {}


def test_an_id_is_found_in_the_log_by_its_hash_alone(aftermath: Narrator) -> None:
    output = aftermath.seen["output with kafka"]
    lines = [json.loads(line) for line in output.splitlines()]
    found = {(each["event_id"], each["record_key"]): each["event"] for each in lines if each.get("record_key")}

    assert "evt_" not in output
    for webhook_id in aftermath.accepted:
        key = (aftermath.records[webhook_id].key or b"").decode()
        assert found[aftermath.hash_id(webhook_id), aftermath.hash_id(key)] == "delivery.accepted"


def test_no_marker_is_in_a_key_or_a_header_but_the_prescription_id_as_the_key(aftermath: Narrator) -> None:
    leaks = {}
    for webhook_id, record in aftermath.records.items():
        key = (record.key or b"").decode()
        others = [
            name + value.decode() for name, value in record.headers if (name, value) != ("ce_subject", record.key)
        ]
        if found := aftermath.of("\n".join(others)):
            leaks[webhook_id] = found
        marked = aftermath.accepted.get(webhook_id)
        allowed = {marked.key} if marked else prescription_ids(aftermath.parked[webhook_id])
        if (found := aftermath.of(key)) and not found <= allowed:
            leaks[webhook_id] = found

    assert leaks == {}


@pytest.mark.parametrize("event_type", EVENT_MODELS)
def test_every_marker_is_in_the_value_of_its_record(aftermath: Narrator, event_type: str) -> None:
    marked = aftermath.accepted[f"evt_{event_type}"]

    value = "\n".join(texts(value_of(aftermath.records[f"evt_{event_type}"])))

    assert {path: text for path, text in marked.markers.items() if text not in value} == {}


def prescription_ids(body: bytes) -> set[str]:
    """What a parked delivery may have as its key, when its JSON is well formed."""
    return {part.split('"')[0] for part in body.decode().split('"prescription_id": "')[1:]}
