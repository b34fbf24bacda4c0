"""Build the consumer `workflow`, an entry point of the group `drx_bridge.consumers`."""

from functools import partial
from importlib.resources import files

from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup, Tables
from consumers.options import read_options
from consumers.workflow.options import NAME, WorkflowOptions
from consumers.workflow.rules import payload, request_id
from consumers.workflow.temporal import TIMEOUT_S, Temporal, WorkflowMetrics, open_temporal, read_codec_keys
from consumers.workflow.timers import BUDGET_S, Timers

MIGRATIONS = files("consumers.workflow") / "migrations"
# Calls at a time; one takes some milliseconds, so eight give several hundred a second.
LANES = 8
# Added to the handler's timeout: a call times out first, so that the server counts as unavailable.
_MARGIN_S = 5.0


def disclosed(options: WorkflowOptions) -> list[str]:
    """List where health information goes."""
    server = f"Temporal at {options.address}, namespace {options.namespace}"
    clear = ", in clear" if options.allow_plaintext else ""
    flows = [f"ids of prescriptions, requests, messages and accounts{clear}: histories of {server}"]
    if options.payload == "full" and options.codec_key_dir is not None:
        (used, *_) = read_codec_keys(options.codec_key_dir)
        flows.append(f"whole events, encrypted with the key {used} of {options.codec_key_dir}: histories of {server}")
    if options.timers == "on":
        flows.append(f"ids of overdue waits: table {options.schema_name(NAME)}.started of this database")
    return flows


def open_workflow(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(WorkflowOptions, NAME, setup.options)
    rules = options.read_rules()
    group = options.group(NAME)
    metrics = WorkflowMetrics(setup.registry, service=group, timers=options.timers == "on")
    timers = Timers(options, task_queue=rules.task_queue, metrics=metrics) if options.timers == "on" else None
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Lanes(LANES),
        types=rules.types,
        handler_timeout_s=TIMEOUT_S + (0 if timers is None else BUDGET_S) + _MARGIN_S,
        group=group,
        tables=Tables(migrations=MIGRATIONS, schema=options.schema_name(NAME)),
        around=partial(open_temporal, options, metrics, identity=f"drx-consumer {group}"),
        ping=Temporal.ping,
        prepare=None if timers is None else timers.prepare,
        discloses=disclosed(options),
    )

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        if context.origin == "import" and options.imports == "skip":
            return
        action = rules.action(event)
        if action is not None:
            temporal: Temporal = context.resource
            content, asked = payload(event, whole=options.payload == "full"), request_id(group, event.source, event.id)
            await temporal.act(action, content, request_id=asked)

    if timers is not None:
        consumer.job(every_s=options.timers_every_s, resource=True)(timers)
    return consumer
