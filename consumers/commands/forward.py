"""`drx-consumer forward try`: show the request for an event, without sending it."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson

from bridge.errors import PermanentError
from bridge.event import ParkReason
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from bridge.mapping import drx_standard
from bridge.mapping.preview import map_body
from bridge.runtime.audit import audited
from bridge.runtime.process import Group
from bridge.runtime.screen import print_json
from consumers.api import Context
from consumers.commands.installed import Chosen, choose
from consumers.commands.options import json_option, phi_options
from consumers.forward.mapping import RequestMapping
from consumers.forward.options import NAME, ForwardOptions
from consumers.options import read_options, server_of
from consumers.runtime.operator import By

MASK = "***"


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
