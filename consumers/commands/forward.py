"""`drx-consumer forward`: `try` shows the request for an event, `listen` sends new events without stored state."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import orjson
from prometheus_client import CollectorRegistry

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.errors import BridgeError, PermanentError
from bridge.event import ParkReason
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.kafka.reader import open_reader
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from bridge.mapping import drx_standard
from bridge.mapping.preview import map_body
from bridge.runtime.audit import audited
from bridge.runtime.process import Group
from bridge.runtime.screen import print_json, printable
from consumers.api import Context
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import json_option, phi_options
from consumers.forward.mapping import PING, RequestMapping
from consumers.forward.options import NAME, ForwardOptions
from consumers.forward.sink import Endpoint, ForwardMetrics, open_endpoint
from consumers.options import read_options, server_of
from consumers.runtime.decoding import Decoded, RecordDecoder, Skip
from consumers.runtime.operator import By

MASK = "***"
_FILTERED = "not sent: filtered"


@click.group(cls=Group)
def forward() -> None:
    """Try out the settings of `forward`."""


@forward.command("try")
@click.argument("event_file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@phi_options
@json_option
def try_event(*, event_file: Path, show_phi: bool, by: By, as_json: bool) -> int:
    """Show the request for the event in EVENT_FILE, a body of contract v1; exit 1 if it would not be sent.

    Values are masked unless --show-phi asks for them, which writes an audit line. Nothing is signed or sent.
    """
    chosen = choose(NAME)
    with audited("forward.try", show_phi=True, **by._asdict()):
        document = _document(chosen, event_file, show_phi=show_phi)
    if as_json:
        print_json(document)
    elif document["sent"]:
        click.echo(f"{document['method']} {document['server']}…{document['path']}")
        print_json(document["body"], indented=True)
    else:
        click.echo(f"not sent: {document['code']}", err=True)
    return int(not document["sent"])


@forward.command()
def listen() -> int:
    """Send each new event once, as `run forward` would, and print the result, until Ctrl-C.

    Needs no PostgreSQL: it starts with the next event, does not retry or park, and stores nothing. For development:
    `env.sh` of `drx-bridge dev` has the settings, except for CONSUMER_FORWARD__URL of your program.
    """
    chosen = choose(NAME)
    asyncio.run(_listen(chosen))
    return 0


async def _listen(chosen: Chosen) -> None:
    settings, consumer = chosen.settings, chosen.consumer
    options = read_options(ForwardOptions, NAME, settings.options(NAME))
    mapping = RequestMapping(options)
    async with (
        open_endpoint(options, ForwardMetrics(CollectorRegistry(), service=NAME)) as endpoint,
        open_decoder(settings.registry) as decoder,
        open_reader(settings.kafka.connection, consumer.topics, from_beginning=False) as reader,
    ):
        records = RecordDecoder(consumer, decoder)
        parts = urlsplit(options.url)
        # Other paths may contain a secret, as in the webhook URLs of chat services.
        path = parts.path if parts.hostname in {"localhost", "127.0.0.1", "::1"} else "…"
        where = f"{server_of(options.url)}{path}, signed by {options.secrets_dir}"
        click.echo(printable(f"sending each new event once to {where}; Ctrl-C ends it"), err=True)
        async for record in reader.forever():
            outcome = await _send(record, records, decoder, mapping, endpoint)
            if outcome == _FILTERED and record.header("ce_type") == PING:
                continue
            click.echo(printable(f"{record.header('ce_type') or '-':<28}  {record.header('ce_id') or '-'}  {outcome}"))


async def _send(
    record: ConsumedRecord, records: RecordDecoder, decoder: EventDecoder, mapping: RequestMapping, endpoint: Endpoint
) -> str:
    try:
        await decoder.inspect(record)  # fetches an unknown schema from the registry
        found = records.decode(record)
        if not isinstance(found, Decoded):
            return _FILTERED if isinstance(found, Skip) else f"not sent: {found.code}"
        position = (NAME, record.topic, record.partition, record.offset, found.ordinal, 1)
        context = Context(*position, traceparent=found.traceparent, origin=found.origin)
        request = mapping.request(found.event, context)
        if request is None:
            return _FILTERED
        await endpoint.send(found.event, context, request)
    except BridgeError as exc:
        return f"failed: {exc.code}"
    return "sent"


def _document(chosen: Chosen, file: Path, *, show_phi: bool) -> dict[str, Any]:
    options = read_options(ForwardOptions, NAME, chosen.settings.options(NAME))
    _, found = map_body(drx_standard, file.read_bytes(), source=NAME, received_at=datetime.now(UTC))
    if isinstance(found, ParkReason):
        why = " ".join(filter(None, (found.reason, found.detail, found.field)))
        return {"sent": False, "code": why}
    event = found.events[0]
    mapping, context = RequestMapping(options), Context(NAME, PRESCRIPTIONS_TOPIC, 0, 0, "", 1)
    try:
        request = mapping.request(event, context) if chosen.consumer.wants(event.type) else None
    except PermanentError as exc:
        return {"sent": False, "code": exc.code}
    if request is None:
        return {"sent": False, "code": "filtered"}
    body = orjson.loads(request.body)
    return {
        "sent": True,
        "method": options.method,
        "server": server_of(options.url),
        "path": request.path if show_phi else options.path,
        "body": body if show_phi else _masked(body),
    }


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner) for inner in value]
    return value if value is None else MASK
