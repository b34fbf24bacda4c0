import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from tests.faults.ingress.oracle import Effects, Logged
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.service_process import HANG_S
from tests.oracle.states import COLUMNS
from tests.postgres import execute, fresh_database

NAME = "read_model"
LOOK_S = 0.2


@dataclass(frozen=True, slots=True)
class Reader:
    process: ConsumerProcess
    dsn: str
    schema: str

    def wait_settled(self, log: Sequence[Logged]) -> None:
        """Return when every record of its topic is settled; fail if there is no progress."""
        ends: dict[int, int] = {}
        for record in log:
            if not record.parked:
                ends[record.place[1]] = max(ends.get(record.place[1], 0), record.offset + 1)
        before: Mapping[int, int] = {}
        moved_at = time.monotonic()
        while (now := self._progress()) != before or any(now.get(part, 0) < end for part, end in ends.items()):
            if now != before:
                before, moved_at = now, time.monotonic()
            assert time.monotonic() - moved_at < HANG_S, (
                f"the read model stands still: {now} of {ends}; it says {self.process.checks()}"
            )
            time.sleep(LOOK_S)

    def effects(self) -> Effects:
        columns = ", ".join(COLUMNS.values())
        rows, events, parked = execute(
            self.dsn,
            f"select prescription_id, events, {columns} from {self.schema}.prescription",  # noqa: S608 - ours
            f"select prescription_id, array_agg(event_id) from {self.schema}.event group by 1",  # noqa: S608 - ours
            "select count(*) from drx_consumer.parked_event",
        )
        assert parked == [(0,)], "the read model has parked events"
        return Effects(
            states={row[0]: dict(zip(COLUMNS, row[2:], strict=True)) for row in rows},
            counts={row[0]: row[1] for row in rows},
            events={row[0]: row[1] for row in events},
        )

    def _progress(self) -> dict[int, int]:
        query = f"select part, next_offset from drx_consumer.progress where grp = '{NAME}.{self.schema}'"  # noqa: S608 - ours
        ((*rows,),) = execute(self.dsn, query)
        return {part: offset for part, offset in rows if offset is not None}


@contextmanager
def reading(bootstrap_servers: str, postgres: str, directory: Path, *, topic: str) -> Iterator[Reader]:
    schema = f"rm_{uuid4().hex[:12]}"
    settings: dict[str, Any] = {"KAFKA__SESSION_S": "6", "READ_MODEL__SCHEMA": schema, "READ_MODEL__TOPICS": topic}
    with (
        fresh_database(postgres) as dsn,
        ConsumerProcess(directory, NAME, bootstrap_servers=bootstrap_servers, dsn=dsn, **settings) as process,
    ):
        yield Reader(process, dsn, schema)
