"""`drx-consumer compare`: find events of a sender's export that the read model lacks."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import click
import orjson

from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.mapping.lookup import load_profile
from bridge.mapping.preview import map_body
from bridge.mapping.profile import Mapped, Profile
from bridge.runtime.body_files import bodies_of
from bridge.runtime.files import replace_file
from bridge.runtime.process import FloatRange, pairs
from bridge.runtime.screen import print_rows
from consumers.commands.installed import Chosen, choose
from consumers.postgres.pool import Database
from consumers.read_model.history import prescription_of
from consumers.read_model.options import NAME

BODY_MAX_BYTES = 256 * 1024  # docs/contract.md §1
# Seconds, as an export may round its times; two events of one type and prescription are further apart.
TOLERANCE_S, TOLERANCE_MAX_S = 120.0, 86_400.0
# Prescriptions looked up at a time, of some ten events each.
KEYS_AT_ONCE = 1_000
UNMAPPED_SHOWN = 10

_OF_PRESCRIPTIONS = """
select prescription_id, event_type, occurred_at from "{schema}".event where prescription_id = any ($1)
"""
# Their keys are not stored: see docs/contract.md §4.
_OF_OTHERS = """
select coalesce('req:' || (body ->> 'request_id'), body #>> '{{prescriber,id}}', body ->> 'account_id'),
  event_type, occurred_at
from "{schema}".event where prescription_id is null and event_type = any ($1) and occurred_at between $2 and $3
"""

_Kind = tuple[str, str]  # key and type


class PolledFact(NamedTuple):
    """An event of the export: its time and line number."""

    at: datetime
    line: int


class Export(NamedTuple):
    """The events that the lines of an export are mapped to."""

    lines: int
    prescriptions: Mapping[_Kind, Sequence[PolledFact]]
    others: Mapping[_Kind, Sequence[PolledFact]]  # events without a prescription
    unmapped: Mapping[int, str]  # by line number, the reason why it has no event


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--mapping", required=True, help="A mapping file (….toml), or the name of a profile.")
@click.option("--option", "options", multiple=True, metavar="NAME=VALUE", help="Option of that profile. Repeatable.")
@click.option("--missing", "out", type=click.Path(path_type=Path), help="Write the missing lines here, for `push`.")
@click.option(
    "--tolerance",
    "tolerance_s",
    type=FloatRange(0, TOLERANCE_MAX_S),
    default=TOLERANCE_S,
    show_default=True,
    help="Seconds by which the times of a fact may differ.",
)
@click.option("--allow", type=click.IntRange(0), default=0, show_default=True, help="Missing lines to allow.")
@click.option("--textfile", type=click.Path(path_type=Path), help="Write metrics here, for a node exporter.")
@click.option("--schema", help="Schema of the read model, if not the default.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def compare(
    *,
    file: Path,
    mapping: str,
    options: Sequence[str],
    out: Path | None,
    tolerance_s: float,
    allow: int,
    textfile: Path | None,
    schema: str | None,
    as_json: bool,
) -> int:
    """Look up each line of FILE, an export (NDJSON, a JSON array or CSV), in the read model.

    A line is found if each of its events is: one of the same key and type, at the same time. Exit 1 if more than
    --allow lines are missing or cannot be mapped. No value of a line is shown.
    """
    chosen = choose(NAME, schema=schema)
    export = _read(file, _profile(mapping, options))
    missing = asyncio.run(_missing(chosen, export, timedelta(seconds=tolerance_s)))
    lines = {fact.line for _, fact in missing}
    if out is not None:
        replace_file(out, _ndjson(file, lines), mode=0o600)  # health information
    counts = {"lines": export.lines, "missing": len(lines), "unmapped": len(export.unmapped)}
    if textfile is not None:
        replace_file(textfile, _metrics(counts), mode=0o644)
    by = _by_type_and_day(export, missing)
    if as_json:
        click.echo(orjson.dumps(counts | {"by": by}))
    else:
        print_rows(("type", "day", "events", "missing"), [tuple(each.values()) for each in by if each["missing"]])
        click.echo(", ".join(f"{count} {what}" for what, count in counts.items()))
    for number, why in list(export.unmapped.items())[:UNMAPPED_SHOWN]:
        click.echo(f"line {number} cannot be mapped: {why}", err=True)
    return int(len(lines) + len(export.unmapped) > allow)


def _profile(mapping: str, options: Sequence[str]) -> Profile:
    given = dict(pairs(options, "=", usage="--option is NAME=VALUE"))
    is_file = mapping.endswith(".toml")
    try:
        return load_profile("mapped" if is_file else mapping, given | ({"mapping": mapping} if is_file else {}))
    except ConfigError as exc:
        raise ConfigError(f"--mapping: {exc}") from None


def _read(file: Path, profile: Profile) -> Export:
    prescriptions, others = defaultdict[_Kind, list[PolledFact]](list), defaultdict[_Kind, list[PolledFact]](list)
    unmapped: dict[int, str] = {}
    count = 0
    for number, body, unfit in bodies_of(file, body_max_bytes=BODY_MAX_BYTES):
        count += 1
        found: Mapped | ParkReason = ParkReason("unusable", unfit)
        if not unfit:
            _, found = map_body(profile, body, source=NAME, received_at=datetime.now(UTC))
        if isinstance(found, ParkReason):
            unmapped[number] = " ".join(filter(None, (found.reason, found.detail, found.field)))
            continue
        for event in found.events:
            facts = others if prescription_of(event) is None else prescriptions
            facts[event.key, event.type].append(PolledFact(event.occurred_at, number))
    return Export(count, prescriptions, others, unmapped)


async def _missing(chosen: Chosen, export: Export, tolerance: timedelta) -> list[tuple[str, PolledFact]]:
    """Return type and fact of all events that the read model lacks."""
    missing: list[tuple[str, PolledFact]] = []

    async def look_up(database: Database, facts: Mapping[_Kind, Sequence[PolledFact]], query: str, *args: Any) -> None:
        known = defaultdict[_Kind, list[datetime]](list)
        for key, event_type, at in await database.fetch(query.format(schema=chosen.schema), *args):
            known[key, event_type].append(at)
        for kind, some in facts.items():
            missing.extend((kind[1], each) for each in unmatched(some, known[kind], tolerance))

    async with chosen.open_database("compare") as database:
        kinds = list(export.prescriptions)
        for first in range(0, len(kinds), KEYS_AT_ONCE):
            some = {kind: export.prescriptions[kind] for kind in kinds[first : first + KEYS_AT_ONCE]}
            await look_up(database, some, _OF_PRESCRIPTIONS, sorted({key for key, _ in some}))
        if export.others:
            times = [fact.at for facts in export.others.values() for fact in facts]
            span = (min(times) - tolerance, max(times) + tolerance)
            types = sorted({event_type for _, event_type in export.others})
            await look_up(database, export.others, _OF_OTHERS, types, *span)
    return missing


def unmatched(facts: Iterable[PolledFact], known: Collection[datetime], tolerance: timedelta) -> Iterator[PolledFact]:
    """Yield the facts without a match among the known ones; each known fact matches one."""
    exact = Counter(known)
    late = []
    for fact in sorted(facts):
        if exact[fact.at]:
            exact[fact.at] -= 1
        else:
            late.append(fact)
    left = sorted(exact.elements())
    at = 0
    for fact in late:
        while at < len(left) and left[at] < fact.at - tolerance:
            at += 1
        if at < len(left) and left[at] <= fact.at + tolerance:
            at += 1
        else:
            yield fact


def _by_type_and_day(export: Export, missing: Iterable[tuple[str, PolledFact]]) -> list[dict[str, Any]]:
    groups = (*export.prescriptions.items(), *export.others.items())
    every = Counter((kind[1], fact.at.date().isoformat()) for kind, facts in groups for fact in facts)
    without = Counter((event_type, fact.at.date().isoformat()) for event_type, fact in missing)
    return [
        {"type": of[0], "day": of[1], "events": count, "missing": without[of]} for of, count in sorted(every.items())
    ]


def _ndjson(file: Path, lines: Collection[int]) -> bytes:
    """Return the bodies of some lines, each on one line."""
    wanted = (line.body for line in bodies_of(file, body_max_bytes=BODY_MAX_BYTES) if line.number in lines)
    return b"".join(body.translate(None, b"\r\n") + b"\n" for body in wanted)


def _metrics(counts: Mapping[str, int]) -> bytes:
    values = {f"drxbridge_compare_{name}": value for name, value in counts.items()}
    values["drxbridge_compare_timestamp_seconds"] = int(time.time())
    return "".join(f"# TYPE {name} gauge\n{name} {value}\n" for name, value in values.items()).encode()
