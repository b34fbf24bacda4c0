"""The workflows and signals of a Temporal server, read by Temporal's client."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from temporalio.api.enums.v1 import EventType  # noqa: TID251 - the peer's own client
from temporalio.client import Client, WorkflowHandle  # noqa: TID251 - as above
from temporalio.runtime import Runtime, TelemetryConfig  # noqa: TID251 - as above
from temporalio.service import RPCError, RPCStatusCode  # noqa: TID251 - as above

# See `consumers.workflow.temporal`.
_LEAVE_S = 0.2


class Told(NamedTuple):
    """The start and signals of one workflow."""

    workflow: str
    task_queue: str
    started_with: Any
    signals: list[tuple[str, Any]]  # name and payload of each, in order, repeats included


@asynccontextmanager
async def a_client(address: str, **options: Any) -> AsyncIterator[Client]:
    """Connect as a user of Temporal does."""
    runtime = Runtime(telemetry=TelemetryConfig(logging=None, metrics=None))
    yield await Client.connect(address, runtime=runtime, **options)
    await asyncio.sleep(_LEAVE_S)


async def told(client: Client, workflow_id: str) -> Told | None:
    """Return the start and signals of a workflow; None if it does not exist."""
    handle: WorkflowHandle[Any, Any] = client.get_workflow_handle(workflow_id)
    try:
        history = await handle.fetch_history()
    except RPCError as exc:
        if exc.status != RPCStatusCode.NOT_FOUND:
            raise
        return None
    first = history.events[0].workflow_execution_started_event_attributes
    decode = client.data_converter.decode
    return Told(
        first.workflow_type.name,
        first.task_queue.name,
        (await decode(first.input.payloads))[0],
        [
            (each.signal_name, (await decode(each.input.payloads))[0])
            for each in (
                event.workflow_execution_signaled_event_attributes
                for event in history.events
                if event.event_type == EventType.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED
            )
        ],
    )
