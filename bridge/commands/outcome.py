"""The outcome of a body, for people or as JSON: events with topic, key and partition, or why it is parked."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.commands.tail_format import JSON_MASK, PEOPLE_MASK, Masker, fields_tree, plain, printable
from bridge.commands.tail_format import text as text_of
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Record, raw_name, words_of
from bridge.contract.fields import plain as plain_type
from bridge.event import Event, ParkReason
from bridge.ingress.profiles.mapped import MappingFile
from bridge.ingress.profiles.preview import map_body
from bridge.ingress.profiles.profile import Profile
from bridge.kafka.routing import UNRECOGNIZED_TOPIC, RoutingTable, partition
from bridge.registry.loader import bundled

# The bounds of a source, so that results agree with the ingress.
BODY_MAX_BYTES = 16 * 1024 * 1024
# Beside `unknown_type` of a mapping file.
NOTHING_HOLDS = "no [[event]] has a `when` that holds"


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps bodies as the ingress does for one source.

    Attributes:
        environment: Of the source; empty: that of each body.
        body_max_bytes: A larger body is refused before it is mapped.
        masker: Hides health information; None: it is shown.
    """

    profile: Profile
    source: str
    environment: str
    routing: RoutingTable
    partitions: int
    body_max_bytes: int
    masker: Masker | None

    def outcome(self, path: Path, *, webhook_id: str = "") -> dict[str, Any]:
        """Return the outcome of the body in a file, as JSON types; without `webhook_id` the id is made of the body."""
        body, file = _read(path), text_of(os.fsencode(path))
        if len(body) > self.body_max_bytes:
            return {"file": file, "refused": {"code": "body_too_large"}}
        delivery_id, found = map_body(
            self.profile,
            body,
            source=self.source,
            received_at=datetime.now(UTC),
            environment=self.environment,
            delivery_id=webhook_id,
        )
        if isinstance(found, ParkReason):
            return {"file": file, "parked": self._parked(found, delivery_id)}
        events = [self._event(event) for event in found.events]
        unknown = {path for event in found.events for path in unknown_words(EVENT_MODELS[event.type], event.value)}
        return {
            "file": file,
            "events": events,
            "flags": list(found.flags),
            "enum_unknown": sorted(unknown),
            "extensions": found.extensions,
        }

    def _parked(self, park: ParkReason, delivery_id: str) -> dict[str, Any]:
        key = park.key or delivery_id
        detail = park.detail
        if park.reason == "unknown_type" and not park.field and isinstance(self.profile, MappingFile):
            detail = NOTHING_HOLDS
        return {
            "reason": park.reason,
            "detail": detail,
            "field": park.field,
            "topic": UNRECOGNIZED_TOPIC,
            "key": key,
            "partition": partition(key.encode(), self.partitions),
        }

    def _event(self, event: Event) -> dict[str, Any]:
        record = f"drx.v1.{EVENT_MODELS[event.type].__name__}"
        value = event.value if self.masker is None else self.masker.mask(record, event.value)
        return {
            "id": event.id,
            "type": event.type,
            "topic": self.routing.place(event),
            "key": event.key,
            "partition": partition(event.key.encode(), self.partitions),
            "value": plain(value),
        }


def unknown_words(model: type[Record], value: Mapping[str, Any], path: str = "/data") -> Iterator[str]:
    """Yield the paths of the enums that have no such word as the body has; array indexes are `*`."""
    for name, info in model.model_fields.items():
        kind, item = plain_type(info), value.get(name)
        if words_of(kind) and value.get(raw_name(name)):
            yield f"{path}/{name}"
        is_list = get_origin(kind) is list
        inner = get_args(kind)[0] if is_list else kind
        if isinstance(inner, type) and issubclass(inner, Record):
            at = f"{path}/{name}/*" if is_list else f"{path}/{name}"
            for each in item or () if is_list else (item or {},):
                yield from unknown_words(inner, each, at)


def masker_of(*, as_json: bool) -> Masker:
    """Return what hides health information on a screen or in JSON."""
    return Masker(bundled().schemas(), mask=JSON_MASK if as_json else PEOPLE_MASK)


def show(mapper: Mapper, bodies: Iterable[Path], *, as_json: bool, webhook_id: str = "") -> bool:
    """Print the outcome of each body, and return whether all are events."""
    console = Console(soft_wrap=True, highlight=False)
    are_events = True
    for path in bodies:
        document = mapper.outcome(path, webhook_id=webhook_id)
        are_events &= "events" in document
        if as_json:
            click.echo(orjson.dumps(document))
        else:
            console.print(lines(document))
    return are_events


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(BODY_MAX_BYTES + 1)
    except OSError:
        raise click.FileError(str(path), "cannot be read") from None


def lines(document: Mapping[str, Any]) -> Text:
    """Return an outcome for people."""
    text = Text().append(f"{document['file']}\n", "cyan")
    if refused := document.get("refused"):
        return text.append(f"  refused: {refused['code']}\n", "red")
    if parked := document.get("parked"):
        words = " ".join(filter(None, (parked["reason"], parked["detail"], parked["field"])))
        text.append(f"  parked: {words}\n", "red")
        return text.append(f"  {_place(parked)}\n", "dim")
    if not document["events"]:
        return text.append("  ignored\n", "dim")
    for event in document["events"]:
        text.append(f"  {event['type']}  {printable(event['id'])}\n", "bold green")
        text.append(f"  {_place(event)}\n")
        for line in fields_tree(event["value"], indent=4):
            text.append_text(line).append("\n")
    return text.append(f"  {'  '.join(_notes(document))}\n", "dim")


def _place(of: Mapping[str, Any]) -> str:
    return f"{of['topic']}/{of['partition']}  key {printable(of['key'])}"


def _notes(document: Mapping[str, Any]) -> Iterator[str]:
    where = " ".join(document["enum_unknown"])
    flags = [f"{flag} {where}" if flag == "enum_unknown" else flag for flag in document["flags"]]
    yield f"flags: {', '.join(flags) or 'none'}"
    if unknown := document["extensions"]:
        yield f"unknown fields kept in extensions: {unknown}"
