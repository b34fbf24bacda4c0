"""`drx-bridge push`: history into the bridge, through its public port."""

from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import click

from bridge.commands.posting import Poster
from bridge.commands.sender import Post
from bridge.event import ParkReason
from bridge.known.delivery_ids import id_of_body
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.export import bodies_of
from bridge.runtime.process import FloatRange
from bridge.settings import load_settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--source", required=True, help="Configured source, in whose dialect the file is.")
@click.option("--url", required=True, help="Address of the ingress; the default path is /webhooks/ and the source.")
@click.option("--lanes", type=click.IntRange(1, 256), default=16, show_default=True, help="Deliveries at one time.")
@click.option("--rate", type=FloatRange(0, min_open=True), help="Deliveries a second; default: as fast as it goes.")
@click.option("--from-line", type=click.IntRange(1), default=1, help="Leave the lines before this one out.")
@audit_options
def push(
    *, file: Path, source: str, url: str, lanes: int, rate: float | None, from_line: int, actor: str, reason: str
) -> int:
    """Post each line of FILE as a delivery of history; exit 1 if one was not accepted.

    FILE is NDJSON, one JSON array, or CSV (`.csv`) with a header line, of which each line becomes an object of text
    members. Deliveries of one key keep their order. A line that these settings make no event of is not posted. Standard
    output has an NDJSON line for each that was not accepted: number, reason and field, and no value. What has been
    posted before is answered `duplicate`, so the command can be repeated at any time. Records carry the header
    `drx_origin: import`.
    """
    settings = load_settings()
    poster = Poster(settings, source, origin="import", url=url)

    async def posts() -> AsyncIterator[Post]:
        before: Counter[str] = Counter()
        for line in bodies_of(file, body_max_bytes=settings.http.body_max_bytes):
            own_id = ""
            if poster.in_buckets:  # equal bodies are facts of their own: a record has come back to an earlier state
                own_id = id_of_body(sha256(line.body).hexdigest())
                before[own_id] += 1
                own_id += f"~{before[own_id]}"
            if line.number < from_line:
                continue
            name = {"line": line.number}
            if line.unfit:
                poster.note(name, "skipped", line.unfit)
                continue
            delivery_id, found = poster.mapped(line.body, datetime.now(UTC), delivery_id=own_id)
            if isinstance(found, ParkReason):
                poster.note(name, "skipped", found.reason, found.field)
            else:
                yield Post(delivery_id, line.body, {event.key for event in found.events}, name)

    with audited("push", actor=actor, reason=reason, source=source, file=str(file), from_line=from_line) as ended:
        code = poster.run(posts(), lanes=lanes, rate=rate)
        ended.update(poster.ended)
    return code
