"""`drx-consumer parked` beside a running consumer: what was set aside is seen, given up, or released in order."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.audit_lines import acts, audit_lines
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer, install_code
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(4)
KEY, OTHER = LIVES.prescription_id(1), LIVES.prescription_id(2)
IDS = LIVES.event_ids(1)
# Refuses two prescriptions until they are healed.
CODE = """
from consumers.api import Consumer, Lanes
from bridge.errors import PermanentError
consumer = Consumer(name="desk", topics=["{topic}"], mode=Lanes(4, transactional=True), group="{group}")
@consumer.handler
async def handle(event, context):
    if event.key in {refused!r} and not await context.connection.fetchval("select exists (select from healed)"):
        raise PermanentError("refused")
    await context.connection.execute("insert into applied (key, event_id) values ($1, $2)", event.key, event.id)
"""
TABLES = ("create table healed ()", "create table applied (number bigserial, key text, event_id text)")


@dataclass(frozen=True, slots=True)
class Lot:
    process: ConsumerProcess
    topic: str
    dsn: str

    async def __call__(self, verb: str, *arguments: str) -> tuple[int, str, str]:
        return await drx_consumer(self.process.env, "parked", verb, "desk", *arguments)

    async def lines(self, verb: str, *arguments: str) -> list[dict[str, Any]]:
        code, out, err = await self(verb, *arguments)
        assert code == 0, err
        return [json.loads(line) for line in out.splitlines()]

    def rows(self, query: str) -> list[Any]:
        return execute(self.dsn, query)[0]

    def applied(self, key: str) -> list[str]:
        return [
            event_id for each, event_id in self.rows("select key, event_id from applied order by number") if each == key
        ]


@pytest.fixture
def lot(cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path) -> Iterator[Lot]:
    topic, group = topics.fresh(partitions=2), topics.unique_key("group")
    execute(postgres, *TABLES)
    written = fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=2))
    env = install_code(tmp_path / "package", "desk", CODE.format(topic=topic, group=group, refused=(KEY, OTHER)))
    with ConsumerProcess(tmp_path, "desk", bootstrap_servers=cluster.bootstrap_servers, dsn=postgres, env=env) as desk:
        desk.ready()
        settled = "select coalesce(sum(next_offset), 0) from drx_consumer.progress"
        until(lambda: execute(postgres, settled) == [[(written,)]], what="everything settled")
        yield Lot(desk, topic, postgres)


async def test_what_is_parked_is_seen_and_what_it_holds_only_when_asked_for(lot: Lot) -> None:
    line = CODE.splitlines().index('        raise PermanentError("refused")') + 1
    raised = f"bridge.errors.PermanentError at desk_consumer:{line}"
    # An id is any printable text, and to rich brackets are markup and `:car:` is a picture.
    execute(lot.dsn, "update drx_consumer.parked_event set event_id = event_id || '[/x]:car:'")
    keys = await lot.lines("list", "--json")
    waiting = await lot.lines("show", KEY, "--json")
    first, *_ = await lot.lines("show", KEY, "--show-phi", "--json")
    code, table, _ = await lot("list")
    _, lines, _ = await lot("show", KEY)

    assert {each["key"] for each in keys} == {KEY, OTHER}
    assert {(each["class"], each["code"], each["raised"]) for each in keys} == {("permanent", "refused", raised)}
    assert [each["event_id"] for each in waiting] == [f"{each}[/x]:car:" for each in IDS]
    assert [each["class"] for each in waiting] == ["permanent"] + ["behind"] * (len(IDS) - 1)
    assert [each["raised"] for each in waiting] == [raised] + [None] * (len(IDS) - 1)
    assert "value" not in waiting[0]
    assert (first["value"]["prescription_id"], first["value"]["event_id"], first["headers"]["ce_id"]) == (
        *(KEY, IDS[0], IDS[0]),
    )
    assert (code, KEY in table, table.count(raised)) == (0, True, 2)
    assert lines.count("[/x]:car:") == len(IDS)
    assert lines.splitlines()[0].endswith(f"permanent refused  {raised}")


async def test_a_key_is_released_in_order(lot: Lot) -> None:
    execute(lot.dsn, "insert into healed default values")

    asked = await lot.lines("retry", KEY, "--actor", "ann", "--json")
    until(lambda: lot.applied(KEY) == IDS, what="the release")

    assert [(each["key"], each["verb"]) for each in asked] == [(KEY, "retry")]
    assert [each["key"] for each in await lot.lines("list", "--json")] == [OTHER]
    assert lot.rows("select actor, verb, key from drx_consumer.audit") == [("ann", "retry", KEY)]


async def test_a_dry_run_says_what_it_would_do(lot: Lot) -> None:
    one = await lot("retry", KEY, "--dry-run")
    other = await lot("retry", KEY, "rx_other", "--dry-run")

    assert [audit_lines(err) for _, _, err in (one, other)] == [[], []]
    assert (one[0], one[1].startswith(f"would retry {KEY} "), one[2]) == (0, True, "1 would be decided\n")
    assert other == (2, "", "drx-consumer: 1 of these 2 keys is not parked; release of the others would be requested\n")
    assert lot.rows("select release_requested_at from drx_consumer.parked_key") == [(None,)] * 2


async def test_a_key_is_set_aside_by_hand(lot: Lot) -> None:
    other = LIVES.prescription_id(0)

    would = await lot.lines("park", other, "--reason", "told by phone", "--dry-run", "--json")
    before = [each["key"] for each in await lot.lines("list", "--class", "operator", "--json")]
    done = await lot.lines("park", other, "--reason", "told by phone", "--actor", "ann", "--json")
    (found,) = await lot.lines("list", "--class", "operator", "--json")

    assert before == []
    assert (would[0]["partition"], would[0]["key"]) == (done[0]["partition"], done[0]["key"])
    assert (found["key"], found["partition"], found["code"], found["events"]) == (
        other,
        done[0]["partition"],
        "by_hand",
        0,
    )
    assert lot.rows("select verb, actor, reason, key from drx_consumer.audit") == [
        ("park", "ann", "told by phone", other)
    ]


async def test_a_record_is_skipped_and_a_key_dropped_for_a_reason(lot: Lot) -> None:
    first, *behind = await lot.lines("show", KEY, "--json")

    unexplained = await lot("skip", KEY, "--offset", str(first["offset"]))
    skipped = await lot("skip", KEY, "--offset", str(first["offset"]), "--reason", "seen to by hand")
    left = await lot.lines("show", KEY, "--json")
    await lot.lines("drop-key", KEY, "--reason", "told twice", "--json")

    assert unexplained[0] == 2
    assert f"1 decided; {len(behind)} records of the key still parked: `drx-consumer parked retry desk" in skipped[2]
    assert [each["event_id"] for each in left] == [each["event_id"] for each in behind]
    assert [each["key"] for each in await lot.lines("list", "--json")] == [OTHER]
    assert lot.rows("select verb, reason from drx_consumer.audit order by number limit 2") == [
        ("skip", "seen to by hand"),
        ("drop_key", "told twice"),
    ]


async def test_every_look_at_health_information_and_every_decision_has_an_audit_line_without_the_key(lot: Lot) -> None:
    why = ("--actor", "ann", "--reason", "a drill")
    (first, *_) = await lot.lines("show", KEY, "--json")

    masked = await lot("show", KEY)
    shown = await lot("show", KEY, "--show-phi", *why)
    skipped = await lot("skip", KEY, "--offset", str(first["offset"]), *why)

    assert audit_lines(masked[2]) == []
    for verb, err in (("show", shown[2]), ("skip", skipped[2])):
        assert acts(err) == [(f"parked.{verb}", "begun"), (f"parked.{verb}", "done")]
        assert {(line["actor"], line["reason"]) for line in audit_lines(err)} == {("ann", "a drill")}
        assert KEY not in err
    assert audit_lines(shown[2])[1]["records"] == len(IDS)
    assert audit_lines(skipped[2])[1]["places"] == [f"{lot.topic}/{first['partition']}@{first['offset']}"]


async def test_a_key_is_released_without_the_name_of_its_topic(ledger_dsn: str) -> None:
    """As its page shows it, also of a consumer that reads several."""
    execute(
        ledger_dsn,
        """
        insert into drx_consumer.parked_key (grp, topic, part, key, class, code, attempts)
        values ('read_model', 'drx.prescriptions.v1', 0, 'rx_1', 'bug', 'unexpected', 1)
        """,
    )
    env = consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=ledger_dsn)

    code, out, err = await drx_consumer(env, "parked", "retry", "read_model", "rx_1")

    assert (code, out) == (0, "retry rx_1  drx.prescriptions.v1/0  unexpected\n"), err
    assert (await drx_consumer(env, "parked", "retry", "read_model", "rx_2"))[0] == 2
