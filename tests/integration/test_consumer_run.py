"""`drx-consumer run` as a process: it starts, applies, waits for unavailable services, and stops on request."""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from bridge.dev.ports import free_port
from consumers.postgres.migrate import LEDGER, read_migrations
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, install_code
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LACKING = ", ".join(f"drx_consumer {each.number}" for each in read_migrations(LEDGER.migrations))
LIVES = Lives(10)
# Holds a thread for longer than any test lasts.
HANGING = """
import asyncio, time
from consumers.api import Consumer
consumer = Consumer(name="desk", topics=["{topic}"], group="{group}")
@consumer.handler
async def handle(event, context):
    await asyncio.to_thread(time.sleep, 3600)
"""
CODE = """
from consumers.api import Consumer, Lanes
consumer = Consumer(name="desk", topics=["{topic}"], mode=Lanes(4, transactional=True), group="{group}")
@consumer.handler
async def handle(event, context):
    await context.connection.execute("insert into applied values ($1)", event.id)
"""
# Opens something around its handlers: away at first, and with a setting that cannot be used if BROKEN is set.
AROUND = """
import os
from contextlib import asynccontextmanager
from pathlib import Path
from consumers.api import Consumer, Lanes
from bridge.errors import ConfigError, TransientError
told, tries = Path(os.environ["TOLD"]), []
@asynccontextmanager
async def around():
    if "BROKEN" in os.environ:
        raise ConfigError("desk.url: no URL")
    tries.append(1)
    if len(tries) == 1:
        raise TransientError("desk_away")
    yield "session"
    with told.open("a") as file:
        print("closed", file=file)
consumer = Consumer(name="desk", topics=["{topic}"], group="{group}", around=around)
@consumer.handler
async def handle(event, context):
    with told.open("a") as file:
        print(context.resource, bool(context.traceparent), file=file)
"""
# Is killed by one record, as by a library's fault.
KILLED = """
import os, signal
from consumers.api import Batches, Consumer, Lanes
def see(event):
    if event.id == os.environ["KILLER"]:
        os.kill(os.getpid(), signal.SIGKILL)
batched = os.environ["MODE"] == "Batches"
consumer = Consumer(name="desk", topics=["{topic}"], group="{group}", mode=Batches() if batched else Lanes(4))
async def one(event, context):
    see(event)
async def some(batch, connection):
    for each in batch:
        see(each.event)
consumer.handler(some if batched else one)
"""
TABLE = "create table applied (event_id text primary key)"

Start = Callable[..., ConsumerProcess]


@pytest.fixture
def topic(topics: Topics) -> str:
    return topics.fresh(partitions=2)


@pytest.fixture
def group(topics: Topics) -> str:
    return topics.unique_key("group")


@pytest.fixture(autouse=True)
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "told"
    monkeypatch.setenv("TOLD", str(path))
    return path


@pytest.fixture
def start(cluster: Cluster, topic: str, group: str, postgres: str, tmp_path: Path) -> Start:
    execute(postgres, TABLE)

    def started(
        *,
        bootstrap_servers: str = "",
        dsn: str = "",
        code: str = CODE,
        more: Mapping[str, str] | None = None,
        command: Sequence[str] = (),
        **settings: str,
    ) -> ConsumerProcess:
        env = install_code(tmp_path / "package", "desk", code.format(topic=topic, group=group))
        return ConsumerProcess(
            tmp_path,
            "desk",
            bootstrap_servers=bootstrap_servers or cluster.bootstrap_servers,
            dsn=dsn or postgres,
            env={**env, **(more or {})},
            command=command,
            **settings,
        )

    return started


def write(cluster: Cluster, topic: str, count: int) -> int:
    return fill(cluster.bootstrap_servers, islice(LIVES.records(topic, partitions=2), count))


def rows(dsn: str, query: str) -> list[Any]:
    return execute(dsn, query)[0]


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def progress(dsn: str) -> int:
    return int(rows(dsn, "select coalesce(sum(next_offset), 0) from drx_consumer.progress")[0][0])


async def test_the_server_ends_nothing_before_the_handlers_own_bound(
    start: Start, cluster: Cluster, topic: str, postgres: str
) -> None:
    """A transaction: it would look like a database that is away. A statement: a time-out of 90 s would never be had."""
    written = write(cluster, topic, 1)
    shown = "values (concat_ws(' ', current_setting('idle_in_transaction_session_timeout'), {}))\""
    code = CODE.replace('values ($1)", event.id', shown.format("current_setting('statement_timeout')"))
    with start(code=code.replace("group=", "handler_timeout_s=90, group=")) as desk:
        desk.ready()
        until(lambda: progress(postgres) == written, what="everything settled")

    assert rows(postgres, "select * from applied") == [("100s 100s",)]


async def test_a_stop_that_hangs_ends_before_the_pod_is_killed(start: Start, cluster: Cluster, topic: str) -> None:
    write(cluster, topic, 1)
    with start(code=HANGING, SHUTDOWN__GRACE_S="4") as desk:
        desk.ready()
        until(lambda: desk.metric("drxbridge_inflight_records") == 1, what="a record in hand")
        assert await desk.end() == 1

    assert len(desk.lines("worker.stop_overdue")) == 1


@pytest.mark.parametrize("away", ["kafka", "postgres"])
async def test_what_is_away_at_the_start_is_waited_for(start: Start, away: str) -> None:
    port = free_port()
    gone = {
        "kafka": {"bootstrap_servers": f"127.0.0.1:{port}"},
        "postgres": {"dsn": f"postgresql://u:p@127.0.0.1:{port}/d"},
    }
    with start(**gone[away]) as desk:
        desk.live()
        until(lambda: desk.checks().get("start") not in {"starting", None}, what="a check that says what is away")
        said = desk.checks()["start"]
        assert await desk.end() == 0

    assert said == {"kafka": "unreachable", "postgres": "connection_refused"}[away]


async def test_a_group_that_was_never_told_where_to_begin_does_not_start(start: Start) -> None:
    with start(KAFKA__OFFSET_RESET="none") as desk:
        assert desk.ended() == 2
    assert f"the tables of desk lack {LACKING}: run `drx-consumer init desk`" in desk.output()


async def test_progress_of_another_cluster_is_refused_until_it_is_accepted(
    start: Start, cluster: Cluster, topic: str, postgres: str
) -> None:
    written = write(cluster, topic, 10)
    with start() as desk:
        desk.ready()
        until(lambda: progress(postgres) == written, what="everything settled")
        await desk.end()
        ((cluster_id,),) = rows(postgres, "select distinct cluster_id from drx_consumer.progress")
        execute(postgres, "update drx_consumer.progress set cluster_id = 'elsewhere'")

        assert desk.start().ended() == 2
        assert f"set CONSUMER_KAFKA__ACCEPT_CLUSTER_ID={cluster_id}" in desk.output()

        desk.start(CONSUMER_KAFKA__ACCEPT_CLUSTER_ID=cluster_id).ready()

        assert rows(postgres, "select distinct cluster_id from drx_consumer.progress") == [(cluster_id,)]


async def test_what_handlers_need_is_opened_before_them_and_closed_after_them(
    start: Start, cluster: Cluster, topic: str, postgres: str, told: Path
) -> None:
    written = write(cluster, topic, 5)
    with start(code=AROUND) as desk:
        desk.ready()
        until(lambda: progress(postgres) == written, what="everything settled")
        assert await desk.end() == 0, desk.output()

    assert '"code":"desk_away"' in desk.output()
    assert lines(told) == ["session True"] * written + ["closed"]


async def test_a_setting_that_cannot_be_used_around_handlers_ends_the_start(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN", "1")
    with start(code=AROUND, bootstrap_servers=f"127.0.0.1:{free_port()}") as desk:
        assert desk.ended() == 2

    assert "desk.url: no URL" in desk.output()


@pytest.mark.parametrize("mode", ["Lanes", "Batches"])
def test_one_at_a_time_the_last_line_names_the_record_that_kills(
    cluster: Cluster, topic: str, start: Start, mode: str
) -> None:
    records = list(islice(LIVES.records(topic, partitions=2), 20))
    fill(cluster.bootstrap_servers, records)
    event_id = dict([each for each in records if each.partition == 1][5].headers)["ce_id"].decode()
    command = [sys.executable, "-m", "consumers", "run", "desk", "--one-at-a-time"]
    with start(code=KILLED, more={"KILLER": event_id, "MODE": mode}, command=command) as process:
        process.ended()
        begun = [json.loads(line) for line in process.output().splitlines() if "record.begun" in line]

    assert [begun[-1][name] for name in ("topic", "partition", "offset")] == [topic, 1, 5]
