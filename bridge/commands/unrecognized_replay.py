"""`drx-bridge unrecognized replay`: post parked deliveries to the ingress again, after their mapping was corrected."""

from collections import Counter
from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any

import click
import orjson

from bridge.commands.tail import instant_of
from bridge.commands.unrecognized import parked
from bridge.event import ParkReason
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import FloatRange, bootstrap_option, with_brokers
from bridge.sender.posting import Poster
from bridge.sender.sender import AHEAD_BYTES, TASK_BYTES, Post
from bridge.settings import load_settings

LANES = 16
# Key of deliveries that these settings map to no event: sharing one key, they are posted in order.
UNKNOWN_KEY = ""
Parked = tuple[ConsumedRecord, dict[str, Any]]


@click.command()
@click.option("--source", required=True, help="Configured source.")
@click.option("--url", required=True, help="Address of the ingress; the default path is /webhooks/ and the source.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Post nothing; show how these settings map each delivery, but not whether its id is a repeat or a conflict.",
)
@click.option("--reason-code", help="Only deliveries parked for this reason, such as unknown_type.")
@click.option("--since", type=instant_of, metavar="TIME", help="Only deliveries received at or after this time.")
@click.option("--until", type=instant_of, metavar="TIME", help="Only deliveries received before this time.")
@click.option("--id", "delivery_id", help="Only the delivery with this id.")
@click.option("--rate", type=FloatRange(0, min_open=True), help="Deliveries per second; default: unlimited.")
@audit_options
@bootstrap_option
def replay(
    *,
    source: str,
    url: str,
    dry_run: bool,
    reason_code: str | None,
    since: datetime | None,
    until: datetime | None,
    delivery_id: str | None,
    rate: float | None,
    actor: str,
    reason: str,
    bootstrap_servers: str | None,
) -> int:
    """Post parked deliveries of a source to the ingress again; exit 1 if any is parked again, refused or skipped.

    Each keeps its id and time of first receipt; those of one key are posted in the order of first receipt. Deliveries
    parked as `id_conflict` are skipped unless --reason-code names it. Deliveries that are events by now get the outcome
    `duplicate`, so the command can be repeated at any time. Standard output has an NDJSON line for each delivery that
    was not accepted, with id, reason and field but no value. Records have the header `drx_origin: replay`.
    """
    settings = with_brokers(load_settings(), bootstrap_servers)
    poster = Poster(settings, source, origin="replay", url=None if dry_run else url)

    def wanted(record: ConsumedRecord) -> bool:
        parked_for = record.header("drx_reason")
        return (
            record.header("ce_source") == source
            and (parked_for == reason_code if reason_code else parked_for != "id_conflict")
            and (delivery_id is None or record.header("ce_id") == delivery_id)
        )

    def skip(partition: int, offset: int, why: str) -> None:
        poster.note({"partition": partition, "offset": offset}, "skipped", why)

    async def read(*, first: bool) -> AsyncIterator[Parked]:
        readable = parked(
            settings,
            wanted,
            unreadable=lambda place, offset, _: skip(place.partition, offset, "corrupt") if first else None,
            undecodable=lambda record, code: skip(record.partition, record.offset, code) if first else None,
        )
        async for record, value in readable:
            received = value["received_at"]
            if (since is None or received >= since) and (until is None or received < until):
                yield record, value

    async def posts() -> AsyncIterator[Post]:
        async for record, value in by_first_receipt(read):
            name = {"id": value["webhook_id"], "partition": record.partition, "offset": record.offset}
            _, found = poster.mapped(value["body"], value["received_at"], delivery_id=value["webhook_id"])
            events = () if isinstance(found, ParkReason) else found.events
            if not dry_run:
                received_us = round(value["received_at"].timestamp() * 1e6)
                keys = {event.key for event in events} or {UNKNOWN_KEY}
                yield Post(value["webhook_id"], value["body"], keys, name, received_us)
            elif isinstance(found, ParkReason):
                poster.note(name, "parked", found.reason, found.field)
            else:
                poster.note(name, "event")
                becomes = [{"id": event.id, "type": event.type, "key": event.key} for event in events]
                click.echo(orjson.dumps(name | {"outcome": "event", "events": becomes}))

    what = {"source": source, "reason_code": reason_code, "id": delivery_id, "since": since, "until": until}
    with audited("unrecognized.replay", actor=actor, reason=reason, dry_run=dry_run, **what) as ended:
        code = poster.run(posts(), lanes=LANES, rate=rate)
        ended.update(poster.ended)
    return code


async def by_first_receipt(read: Callable[..., AsyncIterator[Parked]]) -> AsyncIterator[Parked]:
    """Yield each parked delivery once, by first receipt; `read` yields them in the order of parking.

    The topic has another order: a delivery that is parked again goes to its end. All may not fit in memory, so the
    topic is read once to add up their sizes, and then once for every `AHEAD_BYTES`.
    """
    sizes = Counter[int]()  # bytes by minute of the first receipt
    async for _, value in read(first=True):
        sizes[_minute(value)] += len(value["body"]) + TASK_BYTES
    parts, total = dict[int, int](), 0
    for minute in sorted(sizes):
        parts[minute] = total // AHEAD_BYTES
        total += sizes[minute]
    for part in sorted(set(parts.values())):
        found = dict[tuple[str, bytes], Parked]()
        async for record, value in read(first=False):
            if parts.get(_minute(value)) == part:
                found.setdefault((value["webhook_id"], value["body"]), (record, value))
        for each in sorted(found.values(), key=lambda each: each[1]["received_at"]):
            yield each


def _minute(value: dict[str, Any]) -> int:
    return int(value["received_at"].timestamp() // 60)
