"""`drx-bridge mapping check`: does a mapping file compile, and what does it make of the vendor's samples."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.commands.tail_format import JSON_MASK, PEOPLE_MASK, Masker, plain, printable
from bridge.contract.events import EVENT_MODELS
from bridge.errors import ConfigError
from bridge.event import Delivery, Event, ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles.mapped import MappingFile, configure
from bridge.registry.loader import bundled
from bridge.runtime.audit import audit_options, audited

# As a source may send, so that what passes here passes there.
BODY_MAX_BYTES = 16 * 1024 * 1024


@click.group()
def mapping() -> None:
    """Check what a mapping file makes of a vendor's bodies."""


@mapping.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("bodies", nargs=-1, type=click.Path(path_type=Path))
@click.option("--account-id", default="acct_check", show_default=True, help="Option account_id of the source.")
@click.option("--zone", default="", help="Option zone of the source.")
@click.option("--show-phi", is_flag=True, help="Show health information instead of masking it.")
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line per body.")
def check(
    *,
    file: Path,
    bodies: tuple[Path, ...],
    account_id: str,
    zone: str,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
) -> int:
    """Compile the mapping FILE and show what it makes of each of the BODIES; exit 1 if one of them would be parked.

    Health information is masked unless --show-phi asks for it, which writes an audit line.
    """
    options = {"mapping": str(file), "account_id": account_id} | ({"zone": zone} if zone else {})
    try:
        compiled = configure(options)
    except ConfigError as exc:
        raise ConfigError(str(exc).removeprefix("options.mapping: ")) from None
    mask = JSON_MASK if as_json else PEOPLE_MASK
    masker = None if show_phi else Masker(bundled().schemas(), mask=mask)
    console = Console(soft_wrap=True, highlight=False)
    is_sound = True
    with audited("mapping.check", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, file=str(file)):
        for path in bodies:
            document = _outcome(compiled, path, masker)
            is_sound &= "parked" not in document
            if as_json:
                click.echo(orjson.dumps(document))
            else:
                console.print(_lines(document))
        if not as_json:
            console.print(f"{file}: {len(compiled.tables)} events, sha256 {compiled.sha256}", style="dim")
    return 0 if is_sound else 1


def _outcome(compiled: MappingFile, path: Path, masker: Masker | None) -> dict[str, Any]:
    """Map one body as the ingress would; the ids are those of a vendor that sends none."""
    try:
        with path.open("rb") as file:
            body = file.read(BODY_MAX_BYTES + 1)
    except OSError:
        raise click.FileError(str(path), "cannot be read") from None
    digest = sha256(body).hexdigest()
    document = parse(body, arrays=compiled.ARRAYS)
    delivery = Delivery(
        source="check",
        environment="sandbox",
        id=f"dlv_{digest[:32]}",
        received_at=datetime.now(UTC),
        body=body,
        body_sha256=digest,
        key_slot="",
        traceparent="",
        headers={},
    )
    outcome = document if isinstance(document, ParkReason) else compiled.map(delivery, document)
    if isinstance(outcome, ParkReason):
        why = {"reason": outcome.reason, "detail": outcome.detail, "field": outcome.field}
        return {"file": str(path), "parked": why}
    return {
        "file": str(path),
        "events": [_event(event, masker) for event in outcome.events],
        "flags": list(outcome.flags),
    }


def _event(event: Event, masker: Masker | None) -> dict[str, Any]:
    record = f"drx.v1.{EVENT_MODELS[event.type].__name__}"
    value = event.value if masker is None else masker.mask(record, event.value)
    return {"id": event.id, "type": event.type, "key": event.key, "value": plain(value)}


def _lines(document: Mapping[str, Any]) -> Text:
    text = Text(f"{document['file']}\n", "cyan")
    if parked := document.get("parked"):
        words = " ".join(filter(None, (parked["reason"], parked["detail"], parked["field"])))
        return text.append(f"  parked: {words}\n", "red")
    for event in document["events"]:
        text.append(f"  {event['type']}  {printable(event['key'])}  {printable(event['id'])}\n", "bold green")
        for name, value in event["value"].items():
            if value not in (None, [], {}, ""):
                text.append(f"    {name} ", "dim").append(f"{printable(str(value))}\n")
    return text.append(f"  flags: {', '.join(document['flags']) or 'none'}\n", "dim")
