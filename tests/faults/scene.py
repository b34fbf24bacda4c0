"""One topic full of lives, one database, one group, and the processes that a fault is done to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from uuid import uuid4

from bridge.dev.admin import create_topics
from bridge.kafka.record import Record
from tests.faults.consumers import NAME, TABLES
from tests.installed import install
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.ingress_process import until
from tests.postgres import execute, fresh_database
from tests.topic_filler import Lives, fill

Mode = Literal["batches", "lanes"]
PARTITIONS = 4
# The least that brokers allow: a group waits this long for a member that was killed.
SESSION_S = "6"
# The prescription whose events the handler refuses until it is healed.
REFUSED = 3
_MISCOUNTED = """
    select prescription_id from counted c full join (
        select prescription_id, count(*) events from appended group by 1
    ) a using (prescription_id) where c.events is distinct from a.events
"""


@dataclass(frozen=True, slots=True)
class Ground:
    """Servers that scenes share."""

    bootstrap_servers: str
    postgres: str
    directory: Path


@dataclass
class Scene:
    """What a test does its faults to."""

    ground: Ground
    name: str
    topic: str
    group: str
    dsn: str
    lives: Lives
    settings: Mapping[str, str]
    package: Mapping[str, str]
    stack: ExitStack
    partitions: int
    records: Iterator[Record]
    written: int = 0
    members: list[ConsumerProcess] = field(default_factory=list)

    def write(self, count: int | None = None) -> None:
        """Write so many records more, or all that are left."""
        self.written += fill(self.ground.bootstrap_servers, islice(self.records, count))

    def member(self, failpoint: str = "", **settings: str) -> ConsumerProcess:
        """Start one more process of the group; it is killed at the end."""
        variables: dict[str, Any] = {**self.settings, **settings}
        process = ConsumerProcess(
            self.ground.directory / self.group,
            self.name,
            bootstrap_servers=self.ground.bootstrap_servers,
            dsn=self.dsn,
            env={**self.package, "DRX_FAILPOINT": failpoint},
            **variables,
        )
        self.members.append(self.stack.enter_context(process))
        return process

    def ask(self, query: str) -> list[Any]:
        """Rows of a query on the database."""
        return execute(self.dsn, query)[0]

    def progress(self) -> dict[int, int]:
        """Next offset of each partition; nothing yet of those that were never claimed or settled."""
        if self.ask("select to_regclass('drx_consumer.progress')") == [(None,)]:
            return {}
        rows = self.ask(f"select part, next_offset from drx_consumer.progress where grp = '{self.group}'")  # noqa: S608
        return {part: offset for part, offset in rows if offset is not None}

    def settled(self) -> int:
        """Records settled so far, of all partitions."""
        return sum(self.progress().values())

    def wait_settled(self, least: int | None = None) -> None:
        """Wait until that many records are settled, or all that were written."""
        wanted = self.written if least is None else least
        until(lambda: self.settled() >= wanted, what=f"{wanted} settled records of {self.group}")

    def ask_release(self) -> None:
        """Heal what was refused, and ask for the release of every parked key as the operator's verb does."""
        execute(
            self.dsn,
            "insert into healed default values",
            "update drx_consumer.parked_key set release_requested_at = now(), release_requested_by = 'test'",
        )

    def release(self) -> None:
        """Ask for the release of what is parked, and wait for it."""
        self.ask_release()
        until(lambda: self.parked() == 0, what=f"the release of what {self.group} has parked")

    def parked(self) -> int:
        """Number of parked events."""
        return int(self.ask("select count(*) from drx_consumer.parked_event")[0][0])

    def check_effects(self) -> None:
        """Each event had its effect once, and those of a prescription had theirs in order."""
        rows = self.ask("select prescription_id, array_agg(event_id order by number) from appended group by 1")
        found = dict(rows)
        wrong = [
            prescription
            for number in range(self.lives.prescriptions)
            if found.get(prescription := self.lives.prescription_id(number), []) != self.lives.event_ids(number)
        ]
        assert wrong == []
        assert sum(map(len, found.values())) == self.written
        assert self.ask(_MISCOUNTED) == []


@contextmanager
def appending(
    ground: Ground,
    mode: Mode,
    lives: Lives,
    *,
    partitions: int = PARTITIONS,
    pause_s: float = 0.0,
    shared: str = "",
    session_s: str = SESSION_S,
) -> Iterator[Scene]:
    """Set a scene of the appender with an empty topic; one prescription is refused until `release`."""
    name = f"{mode}-{uuid4().hex[:12]}"
    topic = f"faults.{name}"
    create_topics(ground.bootstrap_servers, {topic: partitions})
    options = {
        "TOPIC": topic,
        "GROUP": name,
        "MODE": mode,
        "PAUSE_S": str(pause_s),
        "REFUSED": lives.prescription_id(REFUSED),
        "SHARED": shared,
    }
    with fresh_database(ground.postgres) as dsn, ExitStack() as stack:
        execute(dsn, *TABLES)
        yield Scene(
            ground=ground,
            name=NAME,
            topic=topic,
            group=name,
            dsn=dsn,
            lives=lives,
            settings={
                "KAFKA__SESSION_S": session_s,
                **{f"{NAME.upper()}__{option}": value for option, value in options.items()},
            },
            package=install(ground.directory / name / "package", {NAME: "tests.faults.consumers:appender"}),
            stack=stack,
            partitions=partitions,
            records=lives.records(topic, partitions=partitions),
        )
