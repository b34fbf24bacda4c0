"""`drx-bridge tail`: print the records of a topic, decoded, for people or as JSON lines."""

import asyncio
import os
import re
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fnmatch import fnmatchcase
from typing import NamedTuple

import click
import orjson
from rich.console import Console

from bridge.avro.event_decoder import EventDecoder, open_decoder
from bridge.commands.tail_format import Shown, text
from bridge.errors import DecodeError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.key_input import has_number, whole_key
from bridge.kafka.reader import ReadError, TopicReader, open_reader
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from bridge.registry.loader import bundled
from bridge.registry.masker import JSON_MASK, PEOPLE_MASK, Masker
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import bootstrap_option, with_brokers
from bridge.settings import PREFIX, load_settings

_ago = re.compile(r"([0-9]{1,4})([smhd])").fullmatch
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_BROKERS = f"{PREFIX}KAFKA__BOOTSTRAP_SERVERS"


def instant_of(text: str) -> datetime:
    """Parse a time (UTC by default) or an age such as 15m."""
    if found := _ago(text):
        return datetime.now(UTC) - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter("neither 30s, 15m, 1h or 2d nor a time such as 2026-01-31T08:00:00Z") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


class Filters(NamedTuple):
    """Filters on records; None means any."""

    key: bytes | None = None  # the full key, or a vendor's key without its prefix
    event_type: str | None = None
    source: str | None = None
    since: datetime | None = None

    @property
    def since_ms(self) -> int:
        """`since` as a Kafka timestamp, in milliseconds."""
        return 0 if self.since is None else int(self.since.timestamp() * 1000)

    def want(self, record: ConsumedRecord) -> bool:
        """Whether a record is wanted."""
        return (
            (self.key is None or record.key == self.key or has_number(record.key, self.key))
            and (self.event_type is None or fnmatchcase(record.header("ce_type"), self.event_type))
            and self.source in {None, record.header("ce_source")}
            and (self.since is None or record.timestamp_ms >= self.since_ms)
        )


async def wanted_records(
    reader: TopicReader, filters: Filters, *, last: int | None, following: bool
) -> AsyncIterator[ConsumedRecord]:
    """Yield existing records by time, at most the `last` matching ones; then new ones if `following`."""
    newest = deque[ConsumedRecord](maxlen=last if filters.key is None else None)
    keys = set[bytes]()
    async for record in reader.by_time():
        if not filters.want(record):
            continue
        if filters.key is not None:
            keys.add(record.key or b"")
        if last is None and filters.key in (None, record.key):
            yield record
        else:
            newest.append(record)
    if filters.key is not None:
        filters = filters._replace(key=whole_key(filters.key, keys))
        newest = deque((record for record in newest if record.key == filters.key), maxlen=last)
    for record in newest:
        yield record
    if following:
        async for record in _new_records(reader, filters):
            yield record


async def _new_records(reader: TopicReader, filters: Filters) -> AsyncIterator[ConsumedRecord]:
    async for record in reader.forever():
        if filters.want(record):
            if filters.key is not None:  # the first new record decides
                filters = filters._replace(key=whole_key(filters.key, {record.key or b""}))
            yield record


@click.command()
@click.argument("topic", default=PRESCRIPTIONS_TOPIC)
@click.option("--from-beginning", is_flag=True, help="Start with the oldest record instead of the next one.")
@click.option("--until-end", is_flag=True, help="From the oldest record to the current end.")
@click.option("--last", type=click.IntRange(1), metavar="N", help="The newest N records.")
@click.option(
    "--since",
    type=instant_of,
    metavar="TIME",
    help="Records since then, up to the current end: 30m, 1h, 2d, or a time in UTC.",
)
@click.option("--follow", is_flag=True, help="Continue with new records after the current end.")
@click.option("--count", type=click.IntRange(1), help="Stop after this many records.")
@click.option(
    "--key", help="Only records with this key, such as a prescription id; a vendor's also without its prefix."
)
@click.option("--type", "event_type", help="Only records of this type; renewal.* matches all renewal types.")
@click.option("--source", help="Only records of this source.")
@click.option("--show-phi", is_flag=True, help="Show health information instead of masking it.")
@audit_options
@click.option("--json", "as_json", is_flag=True, help="One JSON line per record.")
@bootstrap_option
def tail(
    *,
    topic: str,
    from_beginning: bool,
    until_end: bool,
    last: int | None,
    since: datetime | None,
    follow: bool,
    count: int | None,
    key: str | None,
    event_type: str | None,
    source: str | None,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
    bootstrap_servers: str | None,
) -> int:
    """Print new records of TOPIC (default: drx.prescriptions.v1) as they arrive, until --count or Ctrl-C.

    Existing records are printed if an option asks for them, in the order of time. Health information is masked, except
    enum values such as a status, unless --show-phi asks for it, which writes an audit line. A record that cannot be
    decoded, or a corrupt batch, is reported and skipped.
    """
    settings = with_brokers(load_settings(), bootstrap_servers)
    masker = masker_of(as_json=as_json, show_phi=show_phi)
    console = PipeConsole(soft_wrap=True)
    show = json_line if as_json else people_lines(console, show_bodies=show_phi)
    following = follow or not (until_end or last or since)
    filters = Filters(None if key is None else os.fsencode(key), event_type, source, since)
    if not as_json and console.is_terminal and following:
        click.echo("waiting for records…; Ctrl-C ends it", err=True)

    async def read() -> int:
        """Print the wanted records and return their number."""
        shown = 0
        opening = open_reader(
            settings.kafka.connection,
            [topic],
            from_beginning=bool(from_beginning or until_end or last or since),
            since_ms=filters.since_ms,
            newest=last if filters == Filters() else None,
            unreadable=passed_over,
        )
        async with open_decoder(settings.registry) as decoder, opening as reader:
            async for record in wanted_records(reader, filters, last=last, following=following):
                show(await decoded(record, decoder=decoder, masker=masker))
                shown += 1
                if shown == count:
                    break
        return shown

    try:
        with audited("tail", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, topic=topic):
            shown = asyncio.run(read())
        if not shown and not as_json:
            where = "; events without a prescription are in drx.accounts.v1" if topic == PRESCRIPTIONS_TOPIC else ""
            click.echo(f"{topic} has no {'' if filters == Filters() else 'such '}record{where}", err=True)
    except ReadError as exc:
        if exc.code != "unreachable":
            raise
        raise ReadError(exc.code, f"{exc}; name others with --bootstrap-servers or {_BROKERS}") from None
    except BrokenPipeError:
        # The reader of our output has closed the pipe; at exit Python would flush into it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def masker_of(*, as_json: bool, show_phi: bool) -> Masker | None:
    """Return what masks health information in an output; None to show it."""
    return None if show_phi else Masker(bundled().schemas(), mask=JSON_MASK if as_json else PEOPLE_MASK)


def passed_over(tp: TopicPartition, offset: int, after: int) -> None:
    """Report records that cannot be read."""
    offsets = f"offset {offset}" if after == offset + 1 else f"offsets {offset} to {after - 1}"
    click.echo(f"{tp.topic}/{tp.partition}: {offsets} cannot be read: the batch is corrupt", err=True)


async def decoded(record: ConsumedRecord, *, decoder: EventDecoder, masker: Masker | None) -> Shown:
    """Decode a record to show; `error` is the reason if it cannot be decoded."""
    if record.value is None:
        return Shown(record)
    try:
        found = await decoder.inspect(record)
    except DecodeError as exc:
        return Shown(record, error=exc.code)
    return Shown(record, found.record, found.value if masker is None else masker.mask(found.record, found.value))


class PipeConsole(Console):
    """A console that raises when its output is closed, instead of ending the process with exit code 1."""

    def on_broken_pipe(self) -> None:
        """Raise `BrokenPipeError` instead."""
        raise BrokenPipeError


def json_line(shown: Shown) -> None:
    """Print a record as a JSON line."""
    click.echo(orjson.dumps(shown.document()))


def people_lines(console: Console, *, show_bodies: bool) -> Callable[[Shown], None]:
    """Print for people: a tree of fields on a terminal, two lines per record in a pipe, for grep."""

    def show(shown: Shown) -> None:
        if show_bodies and shown.value is not None and isinstance(body := shown.value.get("body"), bytes):
            shown = replace(shown, value={**shown.value, "body": text(body)})
        console.print(shown.lines(as_tree=console.is_terminal))

    return show
