"""A dropped schema is filled again with the complete history, or not at all (README of the read model, Rebuild)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.postgres import execute
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(10)
# `prescription` but for the time of processing; what a rebuild must reproduce.
_STATE = "select to_jsonb(p) - 'updated_at' from {schema}.prescription p order by prescription_id"


@dataclass(frozen=True, slots=True)
class Site:
    """A topic with events, and a read model for them that does not run yet."""

    directory: Path
    bootstrap_servers: str
    settings: Mapping[str, str]
    schema: str
    dsn: str
    written: int

    @property
    def env(self) -> dict[str, str]:
        return consumer_environment(bootstrap_servers=self.bootstrap_servers, dsn=self.dsn, env=None, **self.settings)

    async def __call__(self, command: str, *arguments: str) -> tuple[int, str, str]:
        return await drx_consumer(self.env, command, "read_model", "--schema", self.schema, *arguments)

    def run(self, **settings: str) -> ConsumerProcess:
        return ConsumerProcess(
            self.directory,
            "read_model",
            bootstrap_servers=self.bootstrap_servers,
            dsn=self.dsn,
            env=None,
            **{**self.settings, "READ_MODEL__SCHEMA": self.schema, **settings},
        )

    async def fill(self) -> tuple[list[Any], str]:
        with self.run() as process:
            process.ready()
            until(lambda: self.rows("select count(*) from {schema}.event") == [(self.written,)], what="all events")
            code, _, refused = await self("forget", "--reason", "rebuilt")
            assert code == 2
            assert await process.end() == 0, process.output()
        return self.rows(_STATE), refused

    def rows(self, query: str) -> list[Any]:
        return execute(self.dsn, query.replace("{schema}", self.schema))[0]

    def drop(self) -> None:
        execute(self.dsn, f'drop schema "{self.schema}" cascade')

    def groups(self) -> dict[str, int]:
        tables = ("progress", "inbox", "settled", "parked_key", "parked_event", "outbox")
        return {name: self.rows(f"select count(*) from drx_consumer.{name}")[0][0] for name in tables}  # noqa: S608 - our names


@pytest.fixture
def site(cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path) -> Site:
    topic = topics.fresh(partitions=2)
    written = fill(cluster.bootstrap_servers, islice(LIVES.records(topic, partitions=2), 60))
    settings = {"READ_MODEL__TOPICS": topic, "KAFKA__OFFSET_RESET": "none"}
    return Site(tmp_path, cluster.bootstrap_servers, settings, f"model_{uuid4().hex[:12]}", postgres, written)


async def test_a_schema_that_was_dropped_is_rebuilt_whole_once_its_group_is_forgotten(site: Site) -> None:
    assert (await site("init", "--from", "earliest"))[0] == 0
    whole, refused = await site.fill()
    site.drop()

    kept = site.groups()
    forgotten = await site("forget", "--reason", "rebuilt", "--actor", "ann", "--json")

    assert "has 1 member: stop each first" in refused
    counts = {"progress": 2, "inbox": site.written, "settled": 0, "parked_keys": 0, "parked_events": 0, "outbox": 0}
    said = {"verb": "forget", "group": f"read_model.{site.schema}", **counts, "dry_run": False}
    assert list(kept.values()) == list(counts.values())
    assert json.loads(forgotten[1]) == said
    assert set(site.groups().values()) == {0}
    audit = "select actor, grp, reason from drx_consumer.audit where verb = 'forget'"
    assert site.rows(audit) == [("ann", said["group"], "rebuilt")]
    assert (await site("init", "--from", "earliest"))[0] == 0
    assert (await site.fill())[0] == whole


async def test_tables_that_would_lack_what_was_read_are_not_made(site: Site) -> None:
    """Neither by `init` nor by a process that makes its tables itself: nothing would ever say what is missing."""
    assert (await site("init", "--from", "latest"))[0] == 0
    site.drop()

    tables_only = await site("init")
    forced = await site("init", "--from", "earliest", "--force", "--reason", "a drill")
    said = [tables_only[2], forced[2]]
    for policy in ("none", "earliest"):
        with site.run(KAFKA__OFFSET_RESET=policy) as process:
            assert process.ended() == 2
            said.append(process.output())

    advice = f"`drx-consumer forget read_model --schema {site.schema} --reason …`"
    assert (tables_only[0], forced[0], [advice in each for each in said]) == (2, 2, [True] * 4)
    assert site.rows("select from pg_namespace where nspname = '{schema}'") == []


async def test_tables_may_lack_what_was_read_if_somebody_says_so(site: Site) -> None:
    """A consumer that gets tables of its own after a year at work."""
    assert (await site("init", "--from", "latest"))[0] == 0
    site.drop()

    unexplained = await site("init", "--go-on")
    trial = await site("init", "--go-on", "--reason", "new in 2.0", "--dry-run")
    code, _, err = await site("init", "--go-on", "--reason", "new in 2.0", "--actor", "ann")

    assert (unexplained[0], "--go-on needs --reason" in unexplained[2]) == (2, True)
    assert trial[0] == 0
    assert code == 0, err
    assert site.rows("select actor, reason from drx_consumer.audit where verb = 'go_on'") == [("ann", "new in 2.0")]
    assert site.rows("select count(*) from {schema}.event") == [(0,)]
