"""One topic of histories, one database, one group, and the processes under fault."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Self

import asyncpg  # noqa: TID251 - looks at what was committed

from bridge.dev.kafka import create_topics
from bridge.kafka.record import Record
from tests.groups import forget_members
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.service_process import HANG_S
from tests.patched import patched
from tests.postgres import execute, fresh_database
from tests.topic_filler import Lives, fill

PARTITIONS = 4
# The least that brokers allow: where several share a group, it waits this long for one that was killed.
SESSION_S = "6"
# Interval of queries for settled records; several scenes query at the same time.
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Ground:
    bootstrap_servers: str
    postgres: str
    directory: Path


class Subject(NamedTuple):
    """The consumer under fault."""

    name: str  # entry point
    group: str
    topic: str
    options: Mapping[str, str]  # its settings without prefix, and `unpaused` those of a process without pauses
    check: "Callable[[Scene], None]"  # compares its effects with the histories, once all records are settled
    unpaused: Mapping[str, str] = MappingProxyType({})
    environment: Mapping[str, str] = MappingProxyType({})  # further variables of its processes
    tables: Sequence[str] = ()  # statements that create its tables

    def settings(self, *, paused: bool = True) -> dict[str, str]:
        options = {**self.options, **({} if paused else self.unpaused)}
        own = {f"{self.name.upper()}__{name}": value for name, value in options.items()}
        return {"KAFKA__SESSION_S": SESSION_S, **own}


class Questions:
    """One database connection for all queries of a thread, since connecting costs more than a query."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._runner = asyncio.Runner()
        self._connection: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.terminate()
        self._runner.close()

    def ask(self, query: str) -> list[Any]:
        try:
            return self._runner.run(self._ask(query))
        except (asyncpg.PostgresConnectionError, OSError):
            return self._runner.run(self._ask(query))

    async def _ask(self, query: str) -> list[Any]:
        if self._connection is None or self._connection.is_closed():
            self._connection = await asyncpg.connect(self._dsn)
        return [tuple(row) for row in await self._connection.fetch(query)]


@dataclass
class Scene:
    """The environment of a fault test."""

    ground: Ground
    subject: Subject
    partitions: int
    dsn: str
    lives: Lives
    stack: ExitStack  # ends everything that the scene has started
    records: Iterator[Record]  # records still to be written
    questions: Questions
    written: int = 0
    members: list[ConsumerProcess] = field(default_factory=list)

    @property
    def group(self) -> str:
        return self.subject.group

    @property
    def topic(self) -> str:
        return self.subject.topic

    def write(self, count: int | None = None) -> None:
        self.written += fill(self.ground.bootstrap_servers, islice(self.records, count))

    def member(
        self, failpoint: str = "", max_poll_s: float | None = None, /, *, paused: bool = True, **settings: str
    ) -> ConsumerProcess:
        variables: dict[str, Any] = {**self.subject.settings(paused=paused), **settings}
        process = ConsumerProcess(
            self.ground.directory / self.group,
            self.subject.name,
            bootstrap_servers=self.ground.bootstrap_servers,
            dsn=self.dsn,
            env={**self.subject.environment, "DRX_FAILPOINT": failpoint},
            command=patched("consumers", "run", self.subject.name, MAX_POLL_S=max_poll_s) if max_poll_s else (),
            **variables,
        )
        self.members.append(self.stack.enter_context(process))
        return process

    def forget_members(self) -> None:
        """Remove dead or frozen members from the group, without waiting for their sessions to expire."""
        forget_members(self.ground.bootstrap_servers, self.group)

    def ask(self, query: str) -> list[Any]:
        return self.questions.ask(query)

    def progress(self) -> dict[int, int]:
        try:
            rows = self.ask(f"select part, next_offset from drx_consumer.progress where grp = '{self.group}'")  # noqa: S608 - ours
        except asyncpg.UndefinedTableError:  # the first process has not made it yet
            return {}
        return {part: offset for part, offset in rows if offset is not None}

    def settled(self) -> int:
        return sum(self.progress().values())

    def wait_settled(self, least: int | None = None, *, still_s: float = HANG_S) -> None:
        """Wait until `least` records are settled, or all that were written, with pauses of `still_s` at most."""
        wanted = self.written if least is None else least
        settled, moved_at = self.settled(), time.monotonic()
        while settled < wanted:
            assert time.monotonic() - moved_at < still_s, f"{self.group} stands still at {settled} of {wanted} records"
            time.sleep(LOOK_S)
            before, settled = settled, self.settled()
            if settled > before:
                moved_at = time.monotonic()

    def parked(self) -> int:
        return int(self.ask("select count(*) from drx_consumer.parked_event")[0][0])

    def finish(self) -> None:
        self.write()
        self.wait_settled()
        self.subject.check(self)


@contextmanager
def scene_of(ground: Ground, subject: Subject, lives: Lives, *, partitions: int = PARTITIONS) -> Iterator[Scene]:
    create_topics(ground.bootstrap_servers, {subject.topic: partitions})
    with fresh_database(ground.postgres) as dsn, ExitStack() as stack:
        execute(dsn, *subject.tables)
        yield Scene(
            ground=ground,
            subject=subject,
            partitions=partitions,
            dsn=dsn,
            lives=lives,
            stack=stack,
            records=lives.records(subject.topic, partitions=partitions),
            questions=stack.enter_context(Questions(dsn)),
        )
