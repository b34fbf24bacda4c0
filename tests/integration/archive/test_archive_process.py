"""`drx-consumer init, run, lag, parked and doctor archive` with a real broker, and a lake read back by DuckDB."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(30)


async def test_a_topic_becomes_files_and_nothing_is_said_of_them(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    topic, lake = topics.fresh(partitions=4), tmp_path / "lake"
    count = fill(cluster.bootstrap_servers, LIVES.records(topic, partitions=4))
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "ARCHIVE__ROOT": str(lake),
        "ARCHIVE__TOPICS": topic,
        "ARCHIVE__WAIT_S": "1",
    }
    environment = consumer_environment(**given)
    code, out, err = await drx_consumer(environment, "init", "archive", "--from", "earliest")
    assert code == 0, err
    said = out + err
    with ConsumerProcess(tmp_path, "archive", **given) as process:
        process.ready()
        until(lambda: len(list((lake / "events").rglob("*.parquet"))) >= 4, what="the files of four partitions")
        until(
            lambda: process.metric("drxbridge_consumer_records_total", outcome="applied") == count,
            what="every event to be settled",
        )
        until(lambda: not list((lake / "staging").iterdir()), what="every file to be published")
        assert await process.end() == 0
    said += process.output()
    for command in (["lag", "archive", "--json"], ["parked", "list", "archive", "--json"], ["doctor", "archive"]):
        code, out, err = await drx_consumer(environment, *command)
        assert code == 0, err
        said += out + err

    assert f"every event, whole: Parquet files below {lake}" in said
    rows = duckdb.sql(
        f"select count(*), count(distinct (_partition, _offset)), count(distinct event_id)"  # noqa: S608 - a test's path
        f" from read_parquet('{lake}/events/**/*.parquet', union_by_name = true)"
    )
    assert rows is not None
    assert rows.fetchall() == [(count, count, count)]
    patient = LIVES.events(0)[0].value["patient"]
    assert isinstance(patient, dict)
    for secret in (patient["last_name"], patient["first_name"], LIVES.prescription_id(0)):
        assert secret not in said

    code, out, err = await drx_consumer(environment, "init", "archive", "--schema", "next", "--from", "earliest")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("drx-consumer: archive.root: ")
    assert "the lake of another database or schema" in err.splitlines()[-1]

    lake.rename(tmp_path / "not_mounted")
    code, out, err = await drx_consumer(environment, "doctor", "archive")
    assert code == 1, out + err
    assert f"archive.root: {lake} is empty, and this archive has files elsewhere" in out + err
