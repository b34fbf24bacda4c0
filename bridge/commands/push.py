"""`drx-bridge push`: post historical events to the bridge, through its public port."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, tzinfo
from pathlib import Path

import click

from bridge.commands.tail import instant_of
from bridge.commands.unrecognized import open_events
from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.mapping.json_body import parse
from bridge.mapping.mapped import moment_of
from bridge.mapping.mapped_functions import ExhaustedError, Expression, ExpressionError, Scope, compile_expression
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.body_files import Body, bodies_of
from bridge.runtime.process import FloatRange
from bridge.sender.posting import Poster
from bridge.sender.sender import Post
from bridge.settings import Settings, load_settings


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--source", required=True, help="Configured source; the file is in its format.")
@click.option("--url", required=True, help="Address of the ingress; the default path is /webhooks/ and the source.")
@click.option("--time", "time_of", metavar="EXPRESSION", help="Member or column with the time of a line without one.")
@click.option("--until", type=instant_of, metavar="TIME", help="End of history (UTC); default: the first live event.")
@click.option(
    "--lanes", type=click.IntRange(1, 256), default=16, show_default=True, help="Deliveries in flight at one time."
)
@click.option("--rate", type=FloatRange(0, min_open=True), help="Deliveries per second; default: unlimited.")
@click.option("--from-line", type=click.IntRange(1), default=1, help="Skip the lines before this one.")
@audit_options
def push(
    *,
    file: Path,
    source: str,
    url: str,
    time_of: str | None,
    until: datetime | None,
    lanes: int,
    rate: float | None,
    from_line: int,
    actor: str,
    reason: str,
) -> int:
    """Post each line of FILE as a historical delivery; exit 1 if one was not accepted.

    FILE is NDJSON, one JSON array, or CSV (`.csv`) with a header line; each CSV line becomes an object of strings.
    Deliveries of one key keep their order. Lines that cannot be mapped to an event are skipped, as are
    lines without a time unless --time names one. Lines at or after --until are skipped too: the sender delivers those
    itself. Standard output has an NDJSON line for each line that was not accepted, with number, reason and field but no
    value. Lines posted earlier get the outcome `duplicate`, so the command can be repeated at any time. Records carry
    the header `drx_origin: import`.
    """
    settings = load_settings()
    poster = Poster(settings, source, origin="import", url=url)
    end = until or asyncio.run(_first_live(settings, source))
    if end and not until:
        click.echo(f"history ends at the first live event of {source}, {end:%Y-%m-%dT%H:%M:%SZ}", err=True)
    try:
        expression = None if time_of is None else compile_expression(time_of)
    except ExpressionError as exc:
        raise ConfigError(f"--time: {exc}") from None

    async def posts() -> AsyncIterator[Post]:
        for line in bodies_of(file, body_max_bytes=settings.http.body_max_bytes):
            if line.number < from_line:
                continue
            made = _post_of(line, poster, expression, end)
            if isinstance(made, Post):
                yield made
            else:
                poster.note({"line": line.number}, "skipped", *made)

    with audited("push", actor=actor, reason=reason, source=source, file=str(file), from_line=from_line) as ended:
        code = poster.run(posts(), lanes=lanes, rate=rate)
        ended.update(poster.ended)
    return code


def _post_of(line: Body, poster: Poster, time_of: Expression | None, end: datetime | None) -> Post | tuple[str, str]:
    """Return the delivery of a line, or the reason and field why it is skipped; see `push` for the arguments."""
    if line.unfit:
        return line.unfit, ""
    now = datetime.now(UTC)
    delivery_id, found = poster.mapped(line.body, now)
    if isinstance(found, ParkReason):
        return found.reason, found.field
    times = {event.occurred_at for event in found.events}
    happened = None if time_of is None or now not in times else _happened(line.body, poster.zone, time_of)
    if now in times and happened is None:
        return "no_time", ""
    if end is not None and any((happened or each) >= end for each in times):
        return "not_history", ""
    received_us = None if happened is None else round(happened.timestamp() * 1e6)
    return Post(delivery_id, line.body, {each.key for each in found.events}, {"line": line.number}, received_us)


def _happened(body: bytes, zone: tzinfo | None, time_of: Expression) -> datetime | None:
    document = parse(body, arrays=True)
    scope = Scope(document, zone)
    try:
        moment = moment_of(scope.evaluate(time_of, document), scope)
    except (ValueError, OverflowError, ExhaustedError):
        return None
    return moment if moment is not None and moment.timestamp() >= 0 else None


async def _first_live(settings: Settings, source: str) -> datetime | None:
    """Return the time of the first event that the sender itself delivered; None if there is none."""
    async with open_events(settings) as reader:
        async for record in reader.by_time():
            if record.header("ce_source") == source and not record.header("drx_origin"):
                return datetime.fromisoformat(record.header("ce_time"))
    return None
