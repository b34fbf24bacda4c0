"""What is wrong about an answer, a record, an order or a row: nothing, or one line for each fault."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from bridge.commands.tail_format import plain
from bridge.dev.demo_acts import DISPLAY, MACHINES, state_after
from bridge.dev.demo_model import Row, Told
from bridge.dev.demo_witness import Seen
from bridge.dev.simulator import Answer
from bridge.dev.story import Outgoing


def answer_faults(answer: Answer) -> list[str]:
    """Say how an answer differs from `200 accepted` at the first attempt."""
    return unequal(status=(answer.reply.status, 200), outcome=(answer.reply.outcome, "accepted"))


def header_faults(record: Seen, outgoing: Outgoing, event: Mapping[str, Any], *, source: str) -> list[str]:
    """Compare the headers with what the contract promises about them."""
    headers = record.headers
    faults = unequal(
        ce_specversion=(headers.get("ce_specversion"), "1.0"),
        ce_type=(headers.get("ce_type"), event["type"]),
        ce_source=(headers.get("ce_source"), source),
        ce_subject=(headers.get("ce_subject"), record.key),
        drx_schema=(headers.get("drx_schema"), record.record),
        drx_body_sha256=(headers.get("drx_body_sha256"), hashlib.sha256(outgoing.body).hexdigest()),
    )
    try:
        same_time = datetime.fromisoformat(headers.get("ce_time", "")) == datetime.fromisoformat(event["timestamp"])
    except ValueError:
        same_time = False
    return faults if same_time else [*faults, "ce_time is not the event's own time"]


def order_faults(sent: Sequence[str], found: Sequence[Seen]) -> list[str]:
    """Compare the ids that were sent with the records of their key, in the order of the partition."""
    faults = []
    if len({(each.topic, each.partition) for each in found}) > 1:
        faults.append("they lie in several partitions")
    if len(found) != len(sent):
        faults.append(f"{len(found)} records for {len(sent)} events")
    if [each.headers.get("ce_id") for each in found] != list(sent):
        faults.append(f"their places are {', '.join(each.place for each in found)}")
    return faults


def state_faults(row: Row | None, acts: int) -> list[str]:
    """Compare a row with what the first `acts` events of the story mean."""
    if row is None:
        return ["there is no row"]
    wanted = state_after(acts)
    words = {name: (row.state[name], wanted[name]) for name in (*MACHINES, DISPLAY)}
    return unequal(events=(row.events, acts), **words)


def history_faults(sent: Sequence[str], found: Sequence[Seen | None], history: Sequence[Told]) -> list[str]:
    """Compare the history with the ids that were sent, and each of its rows with the record that Kafka has."""
    faults = unequal(order=([told.event_id for told in history], list(sent)))
    for record, told in zip(found, history, strict=False):
        if record is not None:
            # As the history is written: instants with `Z`, decimals as text.
            body = orjson.loads(orjson.dumps(record.value, default=plain, option=orjson.OPT_UTC_Z))
            wrong = unequal(place=(told.place, record.place), body=(told.body, body))
            faults += [f"{told.event_type}: {fault}" for fault in wrong]
    return faults


def unequal(**pairs: tuple[object, object]) -> list[str]:
    """Name each pair (found, expected) that is none; values stay out, they may be long."""
    return [
        f"{name} is {found!r}, expected {expected!r}" if isinstance(expected, str | int) else f"{name} differs"
        for name, (found, expected) in pairs.items()
        if found != expected
    ]
