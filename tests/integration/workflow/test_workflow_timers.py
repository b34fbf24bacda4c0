"""An overdue item in the read model starts one workflow, which is signalled when the wait is over."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from prometheus_client import CollectorRegistry
from temporalio.client import Client  # noqa: TID251 - the peer's own client

from bridge.event import Event
from consumers.api import Consumer, Setup
from consumers.postgres.migrate import migrate_tables
from consumers.workflow.consumer import open_workflow
from consumers.workflow.temporal import Temporal
from tests.prescriptions import ago, cancel_answered, filled, processed, renewal_asked, sent
from tests.read_model import ReadModel, open_model
from tests.temporal.histories import Told, a_client, told
from tests.temporal.server import TemporalServer


@dataclass
class Desk:
    """A read model, and the timers of `workflow` on the same database."""

    model: ReadModel
    consumer: Consumer
    temporal: Temporal
    client: Client
    registry: CollectorRegistry
    key: str  # prescription of this test; the server is shared

    async def run(self, *events: Event) -> None:
        await self.model.apply(*events)
        await self.model.tick()
        (job,) = self.consumer.jobs
        async with self.model.database.transaction() as connection:
            await job.once(connection, self.temporal)

    async def rows(self) -> list[tuple[str, str, bool]]:
        found = await self.model.rows("select * from workflow.started order by since, kind")
        return [(row["kind"], row["subject"], row["resolved_at"] is not None) for row in found]

    async def workflows(self) -> list[Told | None]:
        found = await self.model.rows("select workflow_id from workflow.started order by since, kind")
        return [await told(self.client, row["workflow_id"]) for row in found]

    def counted(self, code: str) -> float:
        labels = {"service": "workflow", "code": code}
        return self.registry.get_sample_value("drxbridge_workflow_requests_total", labels) or 0


@pytest.fixture
def more() -> dict[str, str]:
    return {}


@pytest.fixture
async def desk(model_dsn: str, temporal: TemporalServer, more: dict[str, str]) -> AsyncIterator[Desk]:
    registry = CollectorRegistry()
    consumer = open_workflow(Setup({"address": temporal.address, "allow_plaintext": "true", **more}, registry))
    assert consumer.around is not None
    async with AsyncExitStack() as stack:
        model = await stack.enter_async_context(open_model(model_dsn))
        await migrate_tables(model.database, consumer)
        opened = await stack.enter_async_context(consumer.around())
        client = await stack.enter_async_context(a_client(temporal.address))
        yield Desk(model, consumer, opened, client, registry, f"rx_{uuid4().hex}")


async def test_what_waits_too_long_starts_one_workflow_that_is_told_when_it_is_over(desk: Desk) -> None:
    await desk.run(sent(ago(hours=23.9), key=f"{desk.key}_fresh", message_id="m1"))
    assert await desk.rows() == []

    await desk.run(sent(ago(hours=24.1), key=desk.key, message_id="m1"))
    await desk.run()
    (found,) = await desk.workflows()
    assert await desk.rows() == [("unconfirmed", desk.key, False)]
    assert found is not None
    assert (found.workflow, found.task_queue, found.signals) == ("Overdue", "drx", [])
    about = {"kind": "unconfirmed", "subject": desk.key, "source": "drx", "account_id": "acct_4021"}
    assert about.items() <= found.started_with.items()

    await desk.run(processed(ago(minutes=1), key=desk.key, message_id="m1"))
    await desk.run()
    (found,) = await desk.workflows()
    assert await desk.rows() == [("unconfirmed", desk.key, True)]
    assert found is not None
    assert [name for name, _ in found.signals] == ["resolved"]
    assert desk.counted("ok") == 2


async def test_a_question_that_matches_no_prescription_and_a_dispense_after_a_cancel_start_one_too(desk: Desk) -> None:
    await desk.model.apply(
        renewal_asked(ago(days=15), key=f"req:{desk.key}", request_id=desk.key, prescription_id=None),
        topic="drx.accounts.v1",
    )
    await desk.run(
        cancel_answered(ago(hours=3), key=desk.key, request_id="c1", decision="approved"),
        filled(ago(hours=2), "dispensed", key=desk.key),
    )

    assert await desk.rows() == [
        ("request_open", f"req:{desk.key}", False),
        ("dispensed_after_cancel", desk.key, False),
    ]


async def test_a_row_that_a_crash_has_lost_starts_nothing_again(desk: Desk) -> None:
    await desk.run(sent(ago(hours=25), key=desk.key, message_id="m1"))
    await desk.model.rows("delete from workflow.started returning 1")
    await desk.run()

    assert await desk.rows() == [("unconfirmed", desk.key, False)]
    # The server knows the request, or refuses the id.
    assert desk.counted("ok") + desk.counted("late") == 2
    (found,) = await desk.workflows()
    assert found is not None


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a call of a frozen server fail soon, and leave time to one that has just thawed."""
    monkeypatch.setattr("consumers.workflow.temporal.TIMEOUT_S", 2.0)


@pytest.mark.usefixtures("impatient")  # before `desk` is opened
async def test_what_could_not_be_started_is_started_the_next_time(desk: Desk, temporal: TemporalServer) -> None:
    with temporal.frozen():
        await desk.run(sent(ago(hours=25), key=desk.key, message_id="m1"))
        assert await desk.rows() == []
    await desk.run()

    assert await desk.rows() == [("unconfirmed", desk.key, False)]


@pytest.mark.parametrize("more", [{"timers_from": (datetime.now(UTC) - timedelta(days=2)).isoformat()}])
async def test_what_waits_since_before_the_timers_starts_nothing(desk: Desk) -> None:
    await desk.run(
        sent(ago(days=3), key=f"{desk.key}_old", message_id="m1"), sent(ago(days=1.5), key=desk.key, message_id="m2")
    )

    assert await desk.rows() == [("unconfirmed", desk.key, False)]


async def test_a_silent_source_starts_one_until_it_speaks(desk: Desk) -> None:
    # What is usual takes twenty gaps of receipts.
    await desk.model.apply(
        *(sent(ago(minutes=60 - number), key=f"{desk.key}_{number}", message_id="m1") for number in range(30))
    )
    silent = [row for row in await desk.model.rows("select * from {schema}.source_silence") if row["silent"]]
    await desk.run()

    assert [row[:2] for row in await desk.rows()] == [("source_silent", each["source"]) for each in silent]
    assert silent
