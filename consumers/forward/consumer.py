"""Build the consumer `forward`, an entry point of the group `drx_bridge.consumers`."""

from functools import partial

from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup
from consumers.forward.mapping import RequestMapping
from consumers.forward.options import NAME, ForwardOptions
from consumers.forward.sink import Endpoint, ForwardMetrics, open_endpoint
from consumers.options import read_options, server_of

# Added to the handler's timeout: a request times out first, so that the endpoint counts as unavailable.
_MARGIN_S = 5.0


def open_forward(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = read_options(ForwardOptions, NAME, setup.options)
    group = options.group(NAME)
    mapping = RequestMapping(options)
    what = "whole events" if options.payload == "event" else "ids of prescriptions or requests, no other health data"
    what = f"what BODY and PATH select from {what}" if options.body else what
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Lanes(options.lanes),
        types=options.types,
        handler_timeout_s=options.timeout_s + _MARGIN_S,
        group=group,
        around=partial(open_endpoint, options, ForwardMetrics(setup.registry, service=group)),
        ping=Endpoint.ping,
        discloses=[f"{what}, types {','.join(options.types)}: sent to {server_of(options.url)}"],
    )

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        request = mapping.request(event, context)
        if request is not None:
            await context.resource.send(event, context, request)

    return consumer
