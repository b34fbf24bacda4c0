"""Builds the consumer `forward`, an entry point of the group `drx_bridge.consumers`."""

from __future__ import annotations

from functools import partial

from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup
from consumers.forward.mapping import Mapping
from consumers.forward.metrics import ForwardMetrics
from consumers.forward.options import NAME, ForwardOptions
from consumers.forward.sink import Endpoint, open_endpoint
from consumers.options import read_options, server_of

# Added to the handler's timeout: a request times out first, so that the endpoint counts as unavailable.
_MARGIN_S = 5.0


def disclosed(options: ForwardOptions) -> str:
    """List where health information goes."""
    what = "whole events" if options.payload == "event" else "ids of prescriptions or requests, no other health data"
    return f"{what}, types {','.join(options.types)}: sent to {server_of(options.url)}"


def mapping_of(options: ForwardOptions) -> Mapping:
    """Return the mapping of the settings.

    Raises:
        ConfigError: An expression or the path cannot be used.
    """
    return Mapping(
        types=options.types,
        accounts=options.accounts,
        when=options.when,
        body=options.body,
        path=options.path,
        phi=options.payload == "event",
        imports=options.imports == "send",
    )


def open_forward(setup: Setup) -> Consumer:
    """Build it from its settings.

    Raises:
        ConfigError: A setting cannot be used.
    """
    options = read_options(ForwardOptions, NAME, setup.options)
    group = options.group(NAME)
    mapping = mapping_of(options)
    consumer = Consumer(
        NAME,
        options.topics,
        mode=Lanes(options.lanes),
        types=options.types,
        # An event of a newer release's type is parked with its successors, so that none is lost.
        unknown="park",
        handler_timeout_s=options.timeout_s + _MARGIN_S,
        group=group,
        around=partial(open_endpoint, options, ForwardMetrics(setup.registry, service=group)),
        ping=Endpoint.ping,
        discloses=[disclosed(options)],
    )

    @consumer.handler
    async def handle(event: Event, context: Context) -> None:
        request = mapping.request(event, context)
        if request is not None:
            await context.resource.send(event, context, request)

    return consumer
