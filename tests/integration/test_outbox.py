from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import pytest

from bridge.event import Event
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.record import Record
from bridge.kafka.routing import partition
from consumers.api import Consumer, Context
from consumers.runtime import outbox
from consumers.runtime.outbox import ROWS
from tests.cluster import Cluster, Topics
from tests.groups import forget_members
from tests.integration.consumer_process import ConsumerProcess, install_code
from tests.integration.service_process import until
from tests.kafka import HANG_S, read_all
from tests.postgres import execute
from tests.settling import PLACE, a_database, a_record, at_work
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(12)
RECORDS = 120
CODE = """
from consumers.api import Consumer, Lanes
consumer = Consumer("desk", ["{topic}"], group="{group}", mode=Lanes(4), publishes=["{out}"])
@consumer.handler
async def handle(event, context):
    context.publish("{out}", event.key, f"{{context.partition}} {{context.offset}}", headers={{"kind": event.type}})
"""


def waiting(dsn: str) -> int:
    return int(execute(dsn, "select count(*) from drx_consumer.outbox")[0][0][0])


def settled(dsn: str) -> int:
    return int(execute(dsn, "select coalesce(sum(next_offset), 0) from drx_consumer.progress")[0][0][0])


def by_key(records: list[ConsumedRecord]) -> dict[bytes, list[bytes]]:
    found: defaultdict[bytes, dict[bytes, None]] = defaultdict(dict)
    for record in records:
        assert record.key is not None
        assert record.value is not None
        found[record.key].setdefault(record.value)
    return {key: list(values) for key, values in found.items()}


async def test_what_is_published_is_there_in_order_through_a_kill(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    topic, out, group = topics.fresh(partitions=2), topics.fresh(partitions=3), topics.unique_key("group")
    env = install_code(tmp_path / "package", "desk", CODE.format(topic=topic, group=group, out=out))
    written = fill(cluster.bootstrap_servers, islice(LIVES.records(topic, partitions=2), RECORDS))
    with ConsumerProcess(tmp_path, "desk", bootstrap_servers=cluster.bootstrap_servers, dsn=postgres, env=env) as desk:
        desk.ready()
        until(lambda: settled(postgres) >= written // 3, what="progress")
        desk.kill()
        forget_members(cluster.bootstrap_servers, group)
        desk.start().ready()
        until(lambda: settled(postgres) == written and not waiting(postgres), what="an empty outbox")
        code = await desk.end()
    records = await read_all(cluster.bootstrap_servers, out)

    assert code == 0, desk.output()
    sources = await read_all(cluster.bootstrap_servers, topic)
    assert by_key(records) == by_key(
        [each._replace(value=f"{each.partition} {each.offset}".encode()) for each in sources]
    )
    assert {(each.partition, partition(each.key or b"", 3)) for each in records} <= {(n, n) for n in range(3)}
    # By the place of the event, not by the row: a database that was restored gives row ids again.
    named = {each.value: each.header("drx_outbox") for each in records}
    assert named == {
        value: f"{group}:{topic}:{str(value, 'ascii').replace(' ', ':')}:0" for value in named if value is not None
    }
    assert len(named) == written
    assert all(each.header("kind") for each in records)


class OneTopic:
    """A producer in whose cluster there is one topic."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self.written: list[Record] = []  # to this topic

    def partitions(self, topic: str) -> int | None:
        return 1 if topic == self._topic else None

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        del topic, partition
        self.written += records
        return len(records)


async def test_a_topic_that_is_missing_keeps_no_other_waiting(ledger_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even with more records than a turn takes; and what is published now waits for no next look."""
    monkeypatch.setattr(outbox, "POLL_S", 10 * HANG_S)
    consumer, producer = Consumer("tests", [PLACE.topic], publishes=["missing", "there"]), OneTopic("there")

    @consumer.handler
    async def publish(event: Event, context: Context) -> None:
        context.publish("there", event.key, b"")

    insert = """
insert into drx_consumer.outbox (grp, source_topic, source_part, topic, key)
select 'tests', $1, 0, case when n > $2 then 'there' else 'missing' end, convert_to(n::text, 'UTF8')
from generate_series(1, $2 + 2) as n order by n returning id
"""

    async with a_database(ledger_dsn) as database, at_work(consumer, database, producer=producer) as bench:
        await bench.rows(insert, PLACE.topic, ROWS)
        await bench.feed([a_record(0)])
        await bench.until_rows("select count(*)::int from drx_consumer.outbox", [(ROWS,)])

    assert [each.key for each in producer.written] == [b"%d" % (ROWS + 1), b"%d" % (ROWS + 2), b"rx_1"]
