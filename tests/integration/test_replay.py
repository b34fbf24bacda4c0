"""A vendor that is pointed at the bridge before there is a mapping: parked, listed, mapped, replayed; history, too."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest

from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.kafka.transport import ConsumedRecord
from tests.audit_lines import acts
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.ingress_process import IngressProcess
from tests.integration.service_process import HANG_S, until
from tests.postgres import execute

pytestmark = pytest.mark.kafka

KEYS = 60
SECRET = "a secret of the vendor, in a header"
CANARY = "Quintero"
EVENT = """
[[event]]
name = "{name}"
when = "kind == '{name}'"
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


class Vendor:
    """An ingress with one source, whose mapping file can be written anew; each `serve` is a restart."""

    def __init__(self, directory: Path, cluster: Cluster, **changes: str) -> None:
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
            **changes,
        }
        settings = {f"SOURCES__{self.name}__{name}": value for name, value in said.items()}
        self.ingress = IngressProcess(directory / "run", cluster.bootstrap_servers, source=self.name, **settings)

    async def park(self, count: int) -> None:
        headers = {"content-type": "application/json", "x-webhook-secret": SECRET}
        async with aiohttp.ClientSession() as session:

            async def lane(first: int) -> None:
                for number in range(first, count, KEYS):
                    async with session.post(self.ingress.webhook_url, data=a_state(number), headers=headers) as answer:
                        assert (await answer.json())["outcome"] == "parked"

            await asyncio.gather(*(lane(first) for first in range(KEYS)))

    def restart(self, mapping: str) -> None:
        self.mapping.write_text(mapping)
        self.ingress.send_signal(signal.SIGTERM)
        self.ingress.ended()
        self.ingress.start().ready()

    def command(self, *arguments: str | Path) -> list[str]:
        return [sys.executable, "-m", "bridge", *(str(each) for each in arguments)]

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command with the settings of the ingress; no value of a body is in what it prints."""
        done = subprocess.run(  # noqa: S603 - our own command line
            self.command(*arguments), capture_output=True, text=True, timeout=HANG_S, check=False, env=self.ingress.env
        )
        assert done.returncode == code, done.stderr
        assert CANARY not in done.stdout + done.stderr
        return done

    def answered(self, outcome: str = "") -> float:
        labels = {"outcome": outcome} if outcome else {}
        return self.ingress.metric("drxbridge_http_requests_total", **labels)

    def replay(self, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return self.run(
            "unrecognized", "replay", "--source", self.name, "--url", self.ingress.url, *arguments, code=code
        )

    def kill_replay(self, *, after: float) -> None:
        """Kill a replay after the ingress has given `after` more answers."""
        end, output = self.answered() + after, subprocess.DEVNULL
        replay = self.command("unrecognized", "replay", "--source", self.name, "--url", self.ingress.url)
        with subprocess.Popen(replay, stdout=output, stderr=output, env=self.ingress.env) as process:  # noqa: S603 - our own command line
            until(lambda: self.answered() >= end or process.poll() is not None, what="deliveries to be answered")
            process.kill()

    async def facts(self) -> list[ConsumedRecord]:
        return [record for record in await self.ingress.records() if record.topic != UNRECOGNIZED_TOPIC]


@pytest.fixture
def vendor(tmp_path: Path, cluster: Cluster, topics: Topics) -> Iterator[Vendor]:
    topics.standard()
    made = Vendor(tmp_path, cluster)
    with made.ingress:
        made.ingress.ready()
        yield made


def documents(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return [line for line in done.stderr.splitlines() if not line.startswith("{")][-1]


def is_once(records: Sequence[ConsumedRecord], count: int) -> bool:
    return Counter(record.header("ce_id") for record in records).most_common(1)[0][1] == 1 and len(records) == count


async def test_what_was_parked_before_there_was_a_mapping_is_brought_in_once(vendor: Vendor) -> None:
    await vendor.park(300)

    (group,) = documents(vendor.run("unrecognized", "list", "--source", vendor.name, "--json"))
    assert (group["reason"], group["type"], group["count"]) == ("unknown_type", "acme:state", 300)
    assert group["examples"][0] in vendor.run("unrecognized", "list", "--source", vendor.name).stdout
    (shown,) = documents(vendor.run("unrecognized", "show", group["examples"][0], "--json"))
    assert shown["value"]["webhook_id"] == group["examples"][0]
    assert "no parked delivery" in vendor.run("unrecognized", "show", "dlv_no", code=1).stderr

    parked_again = vendor.replay(code=1)
    assert last_line(parked_again) == "300 parked"
    assert acts(parked_again.stderr) == [("unrecognized.replay", "begun"), ("unrecognized.replay", "failed")]
    assert len(await vendor.ingress.records()) == 300  # the ingress remembers them

    vendor.restart(HEAD + STATE)
    dry = vendor.replay("--dry-run")
    assert {each["outcome"] for each in documents(dry)} == {"event"}
    assert await vendor.facts() == []

    assert last_line(vendor.replay("--reason-code", "unknown_type")) == "300 accepted"
    assert last_line(vendor.replay("--since", "2020-01-01")) == "300 duplicate"
    vendor.restart(HEAD + NOTHING + STATE)
    assert last_line(vendor.replay()) == "300 duplicate"

    facts = await vendor.facts()
    assert is_once(facts, 300)
    assert {record.header("drx_origin") for record in facts} == {"replay"}
    order: dict[bytes | None, list[str]] = {}
    for record in facts:
        order.setdefault(record.key, []).append(record.header("ce_time"))  # of the first receipt: the body has none
    assert all(times == sorted(times) for times in order.values())
    assert last_line(vendor.replay("--id", "dlv_no")) == "nothing to post"


async def test_a_file_that_is_pushed_twice_is_there_once(vendor: Vendor, tmp_path: Path) -> None:
    vendor.restart(HEAD + STATE)
    file = tmp_path / "history.ndjson"
    lines = [a_state(number) for number in range(200)]
    lines[150] = lines[90]  # a fact whose body has come before
    lines[10] = json.dumps({"kind": CANARY}).encode()
    lines[20] = b'{"patient": "Quintero'
    file.write_bytes(b"\n".join(lines))
    push = ("push", file, "--source", vendor.name, "--url", vendor.ingress.url)

    first, second = vendor.run(*push, code=1), vendor.run(*push, "--from-line", "101")

    assert [(each["line"], each["reason"]) for each in documents(first)] == [
        (11, "unknown_type"),
        (21, "malformed_json"),
    ]
    assert last_line(first).endswith("198 accepted, 2 skipped")
    assert last_line(second).endswith("100 duplicate")
    facts = await vendor.facts()
    assert {record.header("drx_origin") for record in facts} == {"import"}


async def test_a_source_without_a_shared_secret_needs_the_slot_replay(
    tmp_path: Path, cluster: Cluster, topics: Topics
) -> None:
    topics.standard()
    network = {"SCHEME": "cidr", "SCHEME_NETWORKS": "192.0.2.0/24", "ACCEPT": "cidr_alone"}
    vendor = Vendor(tmp_path, cluster, **network)
    (tmp_path / "vendor" / "current").unlink()
    (tmp_path / "history.ndjson").write_bytes(a_state(1))
    push = ("push", tmp_path / "history.ndjson", "--source", vendor.name, "--url", vendor.ingress.url)
    with vendor.ingress:
        assert "no secret to post with" in vendor.run(*push, code=2).stderr
        vendor.run("secrets", "new", vendor.name, "--slot", "replay")
        vendor.ingress.ready()
        vendor.restart(HEAD + STATE)
        pushed = vendor.run(*push)
        (fact,) = await vendor.facts()

    assert last_line(pushed) == "1 accepted"
    assert (fact.header("drx_key_slot"), fact.header("drx_origin")) == ("replay", "import")


@pytest.mark.faults
async def test_a_replay_that_is_killed_again_and_again_brings_each_fact_in_once(
    vendor: Vendor, cluster: Cluster, postgres: str, tmp_path: Path
) -> None:
    count, kills, rng = 10_000, 20, random.Random(20)  # noqa: S311 - moments of kills
    await vendor.park(count)
    vendor.restart(HEAD + STATE)
    for number in range(1, kills + 1):
        # Each begins with what is there already; in most cases it is killed while it posts what is not.
        vendor.kill_replay(after=rng.uniform(0.2, 1.0) * number * count / kills)
    answered = vendor.answered()
    accepted = vendor.answered("accepted")

    last, again = vendor.replay(), vendor.replay()
    vendor.restart(HEAD + NOTHING + STATE)
    grown = vendor.replay()

    sys.stderr.write(f"{kills} kills: {answered:,.0f} answers, {accepted:,.0f} accepted; then {last_line(last)}\n")
    assert [last_line(each) for each in (again, grown)] == [f"{count:,} duplicate"] * 2
    assert is_once(await vendor.facts(), count)
    servers = cluster.bootstrap_servers
    with ConsumerProcess(tmp_path, "read_model", bootstrap_servers=servers, dsn=postgres) as consumer:
        of_source = f"from read_model.event where source = '{vendor.name}'"
        counted = f"select count(*), count(distinct event_id) {of_source}"
        consumer.ready()
        until(lambda: execute(postgres, counted)[0][0][0] >= count, what="all facts in the read model")
        assert execute(postgres, counted) == [[(count, count)]]
