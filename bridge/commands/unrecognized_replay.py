"""`drx-bridge unrecognized replay`: post parked deliveries to the ingress again, after their mapping was mended."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime

import click
import orjson

from bridge.commands.posting import Poster
from bridge.commands.sender import Post
from bridge.commands.unrecognized import parked
from bridge.event import ParkReason
from bridge.kafka.transport import ConsumedRecord
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.broker_option import asking, bootstrap_option
from bridge.runtime.process import FloatRange
from bridge.settings import load_settings

LANES = 16
INSTANT = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])  # UTC


@click.command()
@click.option("--source", required=True, help="Configured source.")
@click.option("--url", required=True, help="Address of the ingress; the default path is /webhooks/ and the source.")
@click.option("--dry-run", is_flag=True, help="Post nothing: show what each would become by these settings.")
@click.option("--reason-code", help="Only what was parked for this reason, such as unknown_type.")
@click.option("--since", type=INSTANT, metavar="TIME", help="Only what was received then or later.")
@click.option("--until", type=INSTANT, metavar="TIME", help="Only what was received before.")
@click.option("--id", "delivery_id", help="Only the delivery with this id.")
@click.option("--rate", type=FloatRange(0, min_open=True), help="Deliveries a second; default: as fast as it goes.")
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
    """Post parked deliveries of a source to the running ingress again; exit 1 if one is parked again.

    Each has the id and the first receipt that it had, and goes in the order of receipt. What has become an event
    before is answered `duplicate`, so the command can be repeated at any time. Standard output has an NDJSON line for
    each that was not accepted: id, reason and field, and no value. Records carry the header `drx_origin: replay`.
    """
    settings = asking(load_settings(), bootstrap_servers)
    poster = Poster(settings, source, origin="replay", url=None if dry_run else url)

    def wanted(record: ConsumedRecord) -> bool:
        received = datetime.fromtimestamp(record.timestamp_ms / 1000, UTC).replace(tzinfo=None)  # as options are
        return (
            record.header("ce_source") == source
            and (reason_code is None or record.header("drx_reason") == reason_code)
            and (delivery_id is None or record.header("ce_id") == delivery_id)
            and (since is None or received >= since)
            and (until is None or received < until)
        )

    async def posts() -> AsyncIterator[Post]:
        async for record, value in parked(settings, wanted):
            name = {"id": value["webhook_id"], "partition": record.partition, "offset": record.offset}
            _, found = poster.mapped(value["body"], value["received_at"], delivery_id=value["webhook_id"])
            events = () if isinstance(found, ParkReason) else found.events
            if not dry_run:
                received_us = round(value["received_at"].timestamp() * 1e6)
                yield Post(value["webhook_id"], value["body"], {event.key for event in events}, name, received_us)
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
