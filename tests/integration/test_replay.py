"""A vendor that pushes before there is a mapping: parked, listed, mapped, replayed; history, too."""

import json
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import pytest

from bridge.event import ParkReason, instant
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import UNRECOGNIZED_SCHEMA, Record, unrecognized_record, unrecognized_value
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from tests.audit_lines import acts
from tests.builders import WHEN, a_delivery, codec
from tests.cluster import Cluster, Topics
from tests.forked import run
from tests.integration.ingress_process import IngressProcess
from tests.integration.service_process import HANG_S
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

KEYS = 60
PARKED = 2 * KEYS  # so that each key has an order
SECRET = "a secret of the vendor, in a header"
CANARY = "Quintero"
EVENT = """
[[event]]
name = "{name}"
when = "kind == '{name}' || !kind && '{name}' == 'state'"
type = "fulfillment.status_changed"
key = "rx"
[event.data]
queue_id = "rx"
fulfillment_status = "state"
"""
HEAD = 'prefix = "acme:"\nbucket_s = 600'
NOTHING, STATE = (EVENT.replace("{name}", name) for name in ("nothing", "state"))


def a_state(number: int) -> bytes:
    """Make a body without an id and without a time; it is another one for each number."""
    said = {"kind": "state", "event": "acme:state", "rx": f"r{number % KEYS}", "state": "packed", "number": number}
    return json.dumps(said | {"patient": CANARY}).encode()


class Printed(NamedTuple):
    stdout: str
    stderr: str

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stdout.splitlines()]

    @property
    def last_line(self) -> str:
        return [line for line in self.stderr.splitlines() if not line.startswith("{")][-1]


class Vendor:
    """An ingress with one source, whose mapping file can be written anew; each `serve` is a restart."""

    def __init__(self, directory: Path, cluster: Cluster) -> None:
        self.name = f"v{uuid4().hex}"
        self.mapping = directory / "acme.toml"
        self.mapping.write_text(HEAD + NOTHING)
        secrets = directory / "vendor"
        secrets.mkdir()
        (secrets / "current").write_text(SECRET)
        said = {
            "PROFILE": "mapped",
            "SCHEME": "secret_header",
            "ACCEPT": "no_tls",
            "SECRETS_DIR": str(secrets),
            "OPTIONS__MAPPING": str(self.mapping),
            "OPTIONS__ACCOUNT_ID": "acct_1",
        }
        settings = {f"SOURCES__{self.name}__{name}": value for name, value in said.items()}
        self.ingress = IngressProcess(directory / "run", cluster.bootstrap_servers, source=self.name, **settings)

    async def post(self, session: aiohttp.ClientSession, body: bytes) -> str:
        headers = {"content-type": "application/json", "x-webhook-secret": SECRET}
        async with session.post(self.ingress.webhook_url, data=body, headers=headers) as answer:
            return str((await answer.json())["outcome"])

    async def park(self) -> None:
        async with aiohttp.ClientSession() as session:
            assert {await self.post(session, a_state(number)) for number in range(PARKED)} == {"parked"}

    def restart(self, mapping: str) -> None:
        self.mapping.write_text(mapping)
        self.ingress.send_signal(signal.SIGTERM)
        self.ingress.ended()
        self.ingress.start().ready()

    def run(self, *arguments: str | Path, code: int = 0, mapping: Path | None = None) -> Printed:
        command = [sys.executable, "-m", "bridge", *map(str, arguments)]
        own = {f"BRIDGE_SOURCES__{self.name}__OPTIONS__MAPPING": str(mapping or self.mapping)}
        ended, *printed = run(command, self.ingress.env | own, timeout_s=HANG_S)
        assert ended == code, printed
        assert CANARY not in "".join(printed)
        return Printed(*printed)

    def replay(self, *arguments: str, code: int = 0, mapping: Path | None = None) -> Printed:
        posted = ("--source", self.name, "--url", self.ingress.url)
        return self.run("unrecognized", "replay", *posted, *arguments, code=code, mapping=mapping)

    async def facts(self) -> list[ConsumedRecord]:
        return [record for record in await self.ingress.records() if record.topic != UNRECOGNIZED_TOPIC]


@pytest.fixture
def vendor(tmp_path: Path, cluster: Cluster, topics: Topics) -> Iterator[Vendor]:
    topics.standard()
    made = Vendor(tmp_path, cluster)
    with made.ingress:
        made.ingress.ready()
        yield made


async def test_what_was_parked_before_there_was_a_mapping_is_brought_in_once(vendor: Vendor) -> None:
    await vendor.park()

    (group,) = vendor.run("unrecognized", "list", "--source", vendor.name, "--json").documents
    assert [group[each] for each in ("reason", "type", "count", "events")] == ["unknown_type", "acme:state", PARKED, 0]
    assert group["examples"][0] in vendor.run("unrecognized", "list", "--source", vendor.name).stdout
    (shown,) = vendor.run("unrecognized", "show", group["examples"][0], "--json").documents
    assert shown["value"]["webhook_id"] == group["examples"][0]
    assert "no parked delivery" in vendor.run("unrecognized", "show", "dlv_no", code=1).stderr

    parked_again = vendor.replay(code=1)
    assert parked_again.last_line == f"{PARKED} parked"
    assert acts(parked_again.stderr) == [("unrecognized.replay", "begun"), ("unrecognized.replay", "failed")]
    assert len(await vendor.ingress.records()) == PARKED  # the ingress remembers them

    vendor.restart(HEAD + STATE)
    dry = vendor.replay("--dry-run")
    assert {each["outcome"] for each in dry.documents} == {"event"}
    assert await vendor.facts() == []

    assert vendor.replay("--reason-code", "unknown_type").last_line == f"{PARKED} accepted"
    assert vendor.replay("--since", "2020-01-01").last_line == f"{PARKED} duplicate"
    vendor.restart(HEAD + NOTHING + STATE)
    assert vendor.replay().last_line == f"{PARKED} duplicate"

    facts = await vendor.facts()
    assert len({record.header("ce_id") for record in facts}) == len(facts) == PARKED
    assert {record.header("drx_origin") for record in facts} == {"replay"}
    order: dict[bytes | None, list[str]] = {}
    for record in facts:
        order.setdefault(record.key, []).append(record.header("ce_time"))  # of the first receipt: the body has none
    assert all(times == sorted(times) for times in order.values())
    assert vendor.replay("--id", "dlv_no").last_line == "nothing to post"
    (group,) = vendor.run("unrecognized", "list", "--source", vendor.name, "--json").documents
    assert (group["count"], group["events"]) == (PARKED, PARKED)
    assert vendor.run("unrecognized", "list", "--source", vendor.name, "--left", "--json").documents == []


async def test_a_file_that_is_pushed_twice_is_there_once(vendor: Vendor, tmp_path: Path) -> None:
    vendor.restart(HEAD + STATE)
    file = tmp_path / "history.csv"
    rows = [[f"r{number % KEYS}", "packed", f"2026-01-02T0{number // 60}:{number % 60:02}:00"] for number in range(200)]
    rows[150] = rows[90]  # the same fact
    rows[30][2], rows[40][2] = "", "2026-02-30T25:00:00"
    rows[10][1] = CANARY
    file.write_text("\n".join(map(",".join, [["rx", "state", "moved at"], *rows])))
    push = ("push", file, "--source", vendor.name, "--url", vendor.ingress.url)
    untimed = vendor.run(*push, code=1)
    assert untimed.last_line == "200 skipped"
    assert {each["reason"] for each in untimed.documents} == {"no_time"}

    timed = (*push, "--time", "instant(\"moved at\", 'America/Chicago')")
    first, second = vendor.run(*timed, code=1), vendor.run(*timed, "--from-line", "102")

    assert [(each["line"], each["reason"]) for each in first.documents] == [(32, "no_time"), (42, "no_time")]
    assert (first.last_line, second.last_line) == ("197 accepted, 1 duplicate, 2 skipped", "100 duplicate")
    facts = await vendor.facts()
    assert {record.header("drx_origin") for record in facts} == {"import"}
    assert facts[0].header("ce_time").startswith("2026-01-02T")
    assert {record.header("ce_time")[11:13] for record in facts} == {"06", "07", "08", "09"}


async def test_history_ends_where_the_sender_has_begun(vendor: Vendor, tmp_path: Path) -> None:
    """Else an import would have the id of an event that the sender delivers late, and nobody would hear of it."""
    vendor.restart(HEAD + STATE.replace('key = "rx"', 'key = "rx"\ntime = "at"'))
    file = tmp_path / "history.ndjson"
    days = [
        json.dumps({"rx": "r1", "state": "packed", "at": f"2026-01-0{day}T09:00:00Z"}).encode() for day in range(1, 5)
    ]
    file.write_bytes(b"\n".join(days))
    push = ("push", file, "--source", vendor.name, "--url", vendor.ingress.url)
    async with aiohttp.ClientSession() as session:
        await vendor.post(session, days[2])

    pushed = vendor.run(*push, code=1)
    assert [(each["line"], each["reason"]) for each in pushed.documents] == [(3, "not_history"), (4, "not_history")]
    assert pushed.last_line == "2 accepted, 2 skipped"
    assert f"{vendor.name}, 2026-01-03T09:00:00Z" in pushed.stderr
    async with aiohttp.ClientSession() as session:
        assert await vendor.post(session, days[3]) == "accepted"
    assert (
        vendor.run(*push, "--until", "2026-01-04T00:00:00Z", code=1).last_line == "1 accepted, 2 duplicate, 1 skipped"
    )


def parked(vendor: Vendor, number: int, *, at: datetime, reason: str = "unknown_type") -> Record:
    """Build what a replay would leave that parks a delivery again, which was first received at some time."""
    delivery = a_delivery(a_state(number), id=f"dlv_{number}")._replace(
        source=vendor.name, received_at=datetime.now(UTC), first_received_at=at, origin="replay"
    )
    park = ParkReason(reason)
    value = codec().encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, park))
    return unrecognized_record(delivery, park, partition=0, value=value)


async def test_what_was_parked_again_goes_in_the_order_of_its_first_receipt(vendor: Vendor, tmp_path: Path) -> None:
    """Also by a command whose mapping knows no key; what is left out or cannot be decoded is not passed over."""
    numbers = [number * KEYS for number in range(100)]  # of one key
    first = [WHEN + timedelta(minutes=number * 7 % 100) for number in range(100)]
    records = [parked(vendor, number, at=at) for number, at in zip(numbers, first, strict=True)]
    fill(vendor.ingress.bootstrap_servers, [*records, records[1], parked(vendor, 1, at=WHEN, reason="id_conflict")])
    vendor.restart(HEAD + STATE)
    old = tmp_path / "old.toml"
    old.write_text(HEAD + NOTHING)

    assert vendor.replay("--reason-code", "id_conflict", "--dry-run").last_line == "1 event"
    assert vendor.replay("--until", "2026-01-01", "--dry-run").last_line == "nothing to post"
    assert vendor.replay("--since", "2026-01-01", mapping=old).last_line == "100 accepted"
    facts = await vendor.facts()
    assert [record.header("ce_time") for record in facts] == [instant(at) for at in sorted(first)]

    fill(vendor.ingress.bootstrap_servers, [records[0]._replace(value=b"no Avro")])
    again = vendor.replay(code=1)
    assert again.last_line == "100 duplicate, 1 skipped"
    assert [each["reason"] for each in again.documents] == ["bad_magic"]
    (left,) = vendor.run("unrecognized", "list", "--source", vendor.name, "--left", "--json").documents
    assert (left["reason"], left["count"], left["events"]) == ("id_conflict", 1, 0)
