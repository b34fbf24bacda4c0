import asyncio
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from bridge.dev.ports import free_port
from bridge.kafka.consumed_record import TopicPartition
from bridge.kafka.record import Record
from consumers.runtime.start_positions import hint
from tests.audit_lines import acts, audit_lines, spoken
from tests.cluster import Cluster, EmbeddedCluster, Topics
from tests.forked import run
from tests.groups import a_member
from tests.integration.consumer_process import Commands, consumer_environment, drx_consumer, install_code
from tests.kafka import HANG_S, ready_producer
from tests.postgres import execute

pytestmark = pytest.mark.kafka

CODE = """
from consumers.api import Consumer
consumer = Consumer(name="desk", group="{group}", topics=["{topic}"])
@consumer.handler
async def handle(event, context): ...
"""


@dataclass(frozen=True, slots=True)
class Desk(Commands):
    topic: str
    group: str

    def progress(self) -> list[Any]:
        return self.rows("select part, next_offset, cluster_id, grp from drx_consumer.progress order by 1")


@pytest.fixture
def desk(cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path) -> Desk:
    topic, group = topics.fresh(partitions=2), topics.unique_key("group")
    package = install_code(tmp_path, "desk", CODE.format(topic=topic, group=group))
    env = consumer_environment(
        bootstrap_servers=cluster.bootstrap_servers, dsn=postgres, env=package, KAFKA__OFFSET_RESET="none"
    )
    return Desk("desk", env, postgres, topic, group)


async def fill(cluster: Cluster, topic: str, counts: Mapping[int, int], *, timestamp_ms: int = 0) -> None:
    async with ready_producer(cluster.bootstrap_servers, topic, partitions=2) as producer:
        for partition, count in counts.items():
            left = [Record(topic, partition, b"rx_1", b"v", [], timestamp_ms or 1) for _ in range(count)]
            while left:
                left = left[await producer.write(topic, partition, left) :]


async def test_a_missing_topic_is_told_before_there_are_tables(desk: Desk, tmp_path: Path, topics: Topics) -> None:
    """An install that fails for it finds the database as it was when it is repeated."""
    (tmp_path / "other").mkdir()
    package = install_code(tmp_path / "other", "desk", CODE.format(topic=topics.unique_key("absent"), group=desk.group))

    code, out, err = await replace(desk, env={**desk.env, **package})("init", "--from", "earliest", "--unless-placed")

    assert "no such topic" in err
    assert (code, out) == (2, "")
    assert desk.rows("select from pg_namespace where nspname = 'drx_consumer'") == []


async def test_init_says_where_to_begin_in_both_places_but_in_a_dry_run(desk: Desk, cluster: Cluster) -> None:
    await fill(cluster, desk.topic, {0: 3, 1: 1})

    code, out, err = await desk("init", "--from", "latest", "--dry-run")
    assert (code, f"{desk.topic}/0: 3" in out, "tables to create or upgrade: drx_consumer 1" in err) == (0, True, True)
    assert desk.rows("select from pg_namespace where nspname = 'drx_consumer'") == []

    placed = await desk.lines("init", "--from", "latest")

    assert [(line["partition"], line["next_offset"], line["before"]) for line in placed] == [(0, 3, None), (1, 1, None)]
    rows = desk.progress()
    assert [(part, offset, group) for part, offset, _, group in rows] == [(0, 3, desk.group), (1, 1, desk.group)]
    assert all(cluster_id for _, _, cluster_id, _ in rows)
    assert [line["committed"] for line in await desk.lines("lag")] == [3, 1]


async def test_init_begins_at_an_instant(desk: Desk, cluster: Cluster) -> None:
    await fill(cluster, desk.topic, {0: 2}, timestamp_ms=1_000_000)
    await fill(cluster, desk.topic, {0: 2}, timestamp_ms=2_000_000)

    whole = await desk.lines("init", "--from", "1970-01-01T00:00:00+02:00", "--dry-run")
    placed = await desk.lines("init", "--from", "1970-01-01T00:30:00Z")

    assert [line["next_offset"] for line in whole] == [0, 0]
    assert [line["next_offset"] for line in placed] == [2, 0]


async def test_progress_is_moved_by_force_only(desk: Desk, cluster: Cluster) -> None:
    await fill(cluster, desk.topic, {0: 3})
    await desk.lines("init", "--from", "latest")

    refused = await desk("init", "--from", "earliest")
    moved = await desk.lines("init", "--from", "earliest", "--force", "--reason", "a drill", "--actor", "ann")

    assert refused[:2] == (2, "")
    assert spoken(refused[2]).startswith(f"drx-consumer: {desk.group} is placed in every partition: --unless-placed")
    assert [(line["before"], line["next_offset"]) for line in moved] == [(3, 0), (0, 0)]
    audit = desk.rows('select actor, verb, part, "offset", reason from drx_consumer.audit order by number')
    assert audit[2:] == [("ann", "init", 0, 0, "a drill"), ("ann", "init", 1, 0, "a drill")]


async def test_a_group_that_stands_somewhere_is_left_there(desk: Desk, cluster: Cluster) -> None:
    """The same command at each deployment: it places a group once, and afterwards needs no Kafka and no empty group."""
    await fill(cluster, desk.topic, {0: 3})
    again = ("init", "--from", "earliest", "--unless-placed")

    first = await desk.lines(*again)
    await desk.lines("init", "--from", "latest", "--force", "--reason", "a drill")
    away = replace(desk, env={**desk.env, "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": f"127.0.0.1:{free_port()}"})

    assert [line["next_offset"] for line in first] == [0, 0]
    assert await away.lines(*again) == []
    assert [offset for _, offset, _, _ in desk.progress()] == [3, 0]


async def test_a_topic_that_is_newly_subscribed_is_placed_while_the_others_are_read(
    desk: Desk, cluster: Cluster, topics: Topics, tmp_path: Path
) -> None:
    await fill(cluster, desk.topic, {0: 3})
    await desk.lines("init", "--from", "latest")
    added = await asyncio.to_thread(topics.fresh, partitions=1)
    code = CODE.format(topic=f'{desk.topic}", "{added}', group=desk.group)
    wider = replace(desk, env={**desk.env, **install_code(tmp_path / "wider", "desk", code)})

    servers = desk.env["CONSUMER_KAFKA__BOOTSTRAP_SERVERS"]
    async with a_member(servers, group=desk.group, topic=desk.topic):  # of the release before, during a roll-out
        placed = await wider.lines("init", "--from", "earliest", "--unless-placed")

    assert [(line["topic"], line["next_offset"]) for line in placed] == [(added, 0)]
    assert await wider.lines("init", "--from", "earliest", "--unless-placed") == []


async def test_one_partition_is_moved_as_the_hint_says_or_to_an_offset(desk: Desk, cluster: Cluster) -> None:
    await fill(cluster, desk.topic, {0: 3, 1: 3})
    await desk.lines("init", "--from", "latest")
    move = ("--force", "--reason", "a corrupt batch")
    _, _, advice = hint("offset_expired", consumer="desk", tp=TopicPartition(desk.topic, 1)).partition("drx-consumer ")

    code, _, err = await drx_consumer(desk.env, *["a drill" if each == "…" else each for each in shlex.split(advice)])
    assert code == 0, err
    assert [offset for _, offset, _, _ in desk.progress()] == [3, 0]
    moved = await desk.lines("init", "--from", "2", "--partition", f"{desk.topic}/1", *move)
    beyond = await desk("init", "--from", "4", "--partition", f"{desk.topic}/1", *move)
    elsewhere = await desk("init", "--from", "2", "--partition", f"{desk.topic}/7", *move)
    everywhere = await desk("init", "--from", "2", *move)

    assert [(line["partition"], line["before"], line["next_offset"]) for line in moved] == [(1, 0, 2)]
    assert [offset for _, offset, _, _ in desk.progress()] == [3, 2]
    assert (beyond[0], f"{desk.topic}/1 has the offsets 0 to 3, not 4" in beyond[2]) == (2, True)
    assert (elsewhere[0], f"have no partition {desk.topic}/7" in elsewhere[2]) == (2, True)
    assert (everywhere[0], "--from OFFSET needs --partition" in everywhere[2]) == (2, True)


async def test_lag_is_known_of_a_group_that_nobody_is_in(desk: Desk, cluster: Cluster) -> None:
    await desk.lines("init", "--from", "earliest")
    await fill(cluster, desk.topic, {0: 3}, timestamp_ms=1_000)

    first, second = await desk.lines("lag")

    assert (first["records"], first["next_offset"], first["log_end"], first["state"]) == (3, 0, 3, "Empty")
    assert first["seconds"] > 1_000_000
    assert (second["records"], second["seconds"]) == (0, 0.0)


async def test_lag_says_where_a_batch_cannot_be_read(desk: Desk, cluster: Cluster) -> None:
    if not isinstance(cluster, EmbeddedCluster):
        pytest.skip("the files of the broker lie in a container")
    await desk.lines("init", "--from", "earliest")
    await fill(cluster, desk.topic, {0: 3, 1: 2}, timestamp_ms=1_000)
    cluster.spoil_last_batch(desk.topic, 0)

    lags = await desk.lines("lag")
    said = await desk("lag")

    assert [(each["records"], each["seconds"] is None, each["unreadable"]) for each in lags] == [
        (3, True, 0),
        (2, False, None),
    ]
    assert (said[0], f"{desk.topic}/0: the batch at offset 0 cannot be read" in said[2]) == (0, True)


async def test_doctor_looks_for_the_topics_that_a_consumer_publishes_to(
    desk: Desk, tmp_path: Path, topics: Topics
) -> None:
    missing = topics.unique_key("published")
    publishing = CODE.replace("topics=", f'publishes=["{missing}"], topics=').format(topic=desk.topic, group=desk.group)
    there = replace(desk, env={**desk.env, **install_code(tmp_path / "other", "desk", publishing)})
    await there.lines("init", "--from", "latest")

    async def publishes() -> str:
        _, out, _ = await there("doctor")
        (line,) = [each for each in out.splitlines() if " publishes " in each]
        return line

    assert "drx-bridge topics create --topic NAME --like" in await publishes()
    env = {**desk.env, "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": topics.bootstrap_servers}
    words = ("topics", "create", "--topic", missing, "--like", desk.topic)
    code, out, err = await asyncio.to_thread(run, [sys.executable, "-m", "bridge", *words], env, timeout_s=HANG_S)
    assert (code, f"{missing}: created, 2 partitions" in out) == (0, True), err
    assert f"{missing}: 2 partitions" in await publishes()


async def test_lag_says_that_a_topic_was_made_anew(desk: Desk, cluster: Cluster) -> None:
    """Its consumer reads nothing, so none of the records is settled."""
    await fill(cluster, desk.topic, {0: 3, 1: 2}, timestamp_ms=1_000)
    await desk.lines("init", "--from", "latest")
    execute(desk.dsn, "update drx_consumer.progress set next_offset = 7 where part = 0")

    code, out, err = await desk("lag")

    first, second = (" ".join(line.split()[1:]) for line in out.splitlines()[1:3])
    assert first.startswith("7 3 3 ")
    assert first.endswith(" stopped: beyond the end")
    assert second == "2 2 0 0.0"
    assert (code, "1 partition stopped: see `drx-consumer doctor desk`" in err) == (1, True)


async def test_a_database_without_tables_is_one_line(desk: Desk) -> None:
    assert await desk("lag") == (2, "", "drx-consumer: PostgreSQL: no_table → run `drx-consumer init`\n")


async def test_an_operator_begins_and_forgets_what_the_owner_made_tables_for(
    cluster: Cluster, topics: Topics, postgres: str
) -> None:
    """The role may make no table; it needs none where none is lacking."""
    settings = {"KAFKA__OFFSET_RESET": "none", "READ_MODEL__TOPICS": topics.fresh(partitions=1)}
    owner, operator = (
        consumer_environment(bootstrap_servers=cluster.bootstrap_servers, dsn=dsn, env=None, **settings)
        for dsn in (postgres, f"{postgres}?role=drx_operator")
    )
    beside = ("read_model", "--schema", f"model_{uuid4().hex[:12]}")
    made = await drx_consumer(owner, "init", *beside)

    placed = await drx_consumer(operator, "init", *beside, "--from", "latest")
    moved = await drx_consumer(operator, "init", *beside, "--from", "earliest", "--force", "--reason", "a drill")

    done = (placed, moved, await drx_consumer(operator, "forget", *beside, "--reason", "a drill"))
    assert [(code, spoken(err)) for code, _, err in done] == [(0, "")] * 3
    verbs = ("init", "init", "forget")
    assert [acts(err) for _, _, err in done] == [[(verb, "begun"), (verb, "done")] for verb in verbs]
    assert [audit_lines(err)[0]["reason"] for _, _, err in done] == ["", "a drill", "a drill"]
    assert made[0] == 0


async def test_a_start_below_what_is_parked_is_refused(desk: Desk, cluster: Cluster) -> None:
    """The offset of a parked event would be met again, in a topic made anew by another record, and that one lost."""
    await fill(cluster, desk.topic, {0: 3})
    await desk.lines("init", "--from", "latest")
    in_lot = f"'{desk.group}', '{desk.topic}', 'rx_1', 0"
    execute(
        desk.dsn,
        "insert into drx_consumer.parked_key (grp, topic, key, part, class, code, attempts)"  # noqa: S608 - our words
        f" values ({in_lot}, 'bug', 'unexpected', 1)",
        "insert into drx_consumer.parked_event"  # noqa: S608 - as above
        ' (grp, topic, key, part, "offset", timestamp_ms, headers, class, code, attempts, source, event_id, event_type,'
        f" body_sha256) values ({in_lot}, 2, 1, '[]', 'bug', 'unexpected', 1, '', '', '', '')",
    )

    below = await desk("init", "--from", "earliest", "--force", "--reason", "a drill")
    beyond = await desk("init", "--from", "latest", "--force", "--reason", "a drill")

    assert below[0] == 2
    assert spoken(below[2]).startswith(
        "drx-consumer: 1 parked events lie beyond that start; release, skip or drop them first"
    )
    assert [offset for _, offset, _, _ in desk.progress()] == [3, 0]
    assert beyond[0] == 0
