"""`drx-consumer where --history`: show the state of a prescription in the read model, and its events."""

from collections.abc import Iterator, Mapping
from typing import Any

import click
import orjson

from bridge.avro.schema_ids import RECORDS
from bridge.contract.envelope import PrescriptionRecord
from bridge.event import Event
from bridge.registry.loader import bundled
from bridge.registry.masker import JSON_MASK, NOTHING, Masker
from bridge.runtime.screen import TIME, print_json, printable
from consumers.commands.installed import Chosen
from consumers.lifecycle.facts import blank
from consumers.lifecycle.machines import apply
from consumers.lifecycle.roll_up import roll_up

_STATE = """
select display, transmission, order_status, dispense, fulfillment, shipment, open_requests, safety
from "{schema}".prescription where prescription_id = $1
"""
# Like the view `timeline`, which operators may not read (see the roles of the read model).
_EVENTS = """
select occurred_at, received_at, event_type, source, event_id, topic, partition, "offset", body
from "{schema}".event where prescription_id = $1
order by least(occurred_at, received_at + interval '5 minutes'), coalesce((body ->> 'sequence')::bigint, 0),
  event_id, source
"""
# Fields that do not show what happened: participants, and fields of every event.
_COMMON = PrescriptionRecord.model_fields
# Columns of the state listed in `moved` if an event changes them.
_MOVED = (
    *("display", "transmission", "order_status", "open_requests", "dispense", "fulfillment", "shipment"),
    *("safety", "anomalies"),
)


def print_history(document: Mapping[str, Any], *, show_phi: bool, as_json: bool) -> int:
    """Print what `history_of` has found; return 1 if it is nothing."""
    if not document["events"]:
        click.echo("the read model does not have that prescription", err=True)
        return 1
    if as_json:
        print_json(document)
        return 0
    states = [f"{name}={_words(state)}" for name, state in document["state"].items() if state not in NOTHING]
    click.echo(printable(f"{document['prescription_id']}  {'  '.join(states)}"))
    for each in document["events"]:
        click.echo(printable(_line(each)))
        if show_phi:
            print_json(each["body"], indented=True)
    return 0


async def history_of(chosen: Chosen, key: str, *, show_phi: bool) -> dict[str, Any]:
    """Return the state of a prescription and its events, in the order of facts."""
    async with chosen.open_database("where") as database:
        states = await database.fetch(_STATE.format(schema=chosen.schema), key)
        rows = await database.fetch(_EVENTS.format(schema=chosen.schema), key)
    masker = Masker(bundled().schemas(), mask=JSON_MASK)
    events, facts, before = [], blank(), dict[str, Any]()
    for row in map(dict, rows):
        body = orjson.loads(row["body"])
        of_source = (row["event_id"], row["event_type"], row["source"])
        apply(facts, Event(*of_source, key, row["occurred_at"], row["received_at"], body), note=lambda *_: None)
        state = roll_up(facts)._asdict()
        moved = {name: state[name] for name in _MOVED if state[name] != before.get(name)}
        before = state
        shown = body if show_phi else masker.mask(RECORDS.get(row["event_type"], ""), body)
        events.append(row | {"body": shown, "moved": moved})
    return {"prescription_id": key, "state": dict(states[0]) if states else {}, "events": events}


def _line(event: Mapping[str, Any]) -> str:
    position = f"{event['topic']}/{event['partition']}@{event['offset']}"
    what = " ".join(_pairs({name: value for name, value in event["body"].items() if name not in _COMMON}))
    return f"{event['occurred_at']:{TIME}}  {event['event_type']:<26}  {position}  {event['event_id']}  {what}"


def _pairs(fields: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield `name=value` for fields that are neither empty nor masked."""
    for name, value in fields.items():
        if isinstance(value, Mapping):
            yield from _pairs(value, f"{prefix}{name}.")
        elif value not in (*NOTHING, JSON_MASK):
            yield f"{prefix}{name}={_words(value)}"


def _words(value: Any) -> str:
    return ",".join(map(_words, value)) if isinstance(value, list) else str(value)
