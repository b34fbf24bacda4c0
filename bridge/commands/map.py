"""`drx-bridge map` and `mapping check`: show how a body would be mapped, without sending it."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, get_args, get_origin

import click
import orjson
from rich.console import Console
from rich.text import Text

from bridge.avro.schema_ids import RECORDS
from bridge.commands.coverage import Coverage
from bridge.commands.coverage import lines as coverage_lines
from bridge.commands.scheme_options import check_id
from bridge.commands.tail import masker_of
from bridge.commands.tail_format import fields_tree, plain
from bridge.commands.tail_format import text as text_of
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import ContractRecord, raw_name, words_of
from bridge.contract.fields import plain as plain_type
from bridge.errors import ConfigError
from bridge.event import Event, ParkReason
from bridge.kafka.routing import UNRECOGNIZED_TOPIC, RoutingTable, partition
from bridge.mapping.lookup import load_profile, open_profiles
from bridge.mapping.mapped import configure
from bridge.mapping.mapping_file import CompiledFile
from bridge.mapping.preview import ENVIRONMENTS
from bridge.mapping.preview import map_body as preview
from bridge.mapping.profile import Profile
from bridge.registry.masker import Masker
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.findings import counted
from bridge.runtime.process import Group, combined, pairs
from bridge.runtime.screen import printable
from bridge.settings import KafkaSettings, load_settings
from bridge.sources import configured_source

# The same limits as for a source, so that results agree with the ingress.
BODY_MAX_BYTES = 16 * 1024 * 1024
# Explanations of `unknown_type` of a mapping file, without and with the path of a list.
NOTHING_HOLDS = "no [[event]] has a `when` that is true"
NO_ELEMENTS = "`each` finds nothing at"
DEFAULT_PROFILE = "drx_standard"


_shown_options = combined(
    click.option("--show-phi", is_flag=True, help="Show health information instead of masking it."),
    audit_options,
    click.option("--json", "as_json", is_flag=True, help="One JSON line per body; `check` adds one for the file."),
)


@click.command("map")
@click.option("--source", "source_name", help="Configured source: its profile, options and environment.")
@click.option("--profile", "profile_name", help=f"Profile, without a source; default: {DEFAULT_PROFILE}.")
@click.option("--option", "options", multiple=True, help="Option of that profile, NAME=VALUE.")
@click.option(
    "--environment", type=click.Choice(ENVIRONMENTS), help="Environment, without a source; default: that of the body."
)
@click.option("--id", "webhook_id", default="", help="Id of the delivery; default: that of the body, else its hash.")
@_shown_options
@click.argument("bodies", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="BODY_FILE...")
def map_body(
    *,
    source_name: str | None,
    profile_name: str | None,
    options: Sequence[str],
    environment: str | None,
    webhook_id: str,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
    bodies: tuple[Path, ...],
) -> int:
    """Show how the body in each BODY_FILE would be mapped; exit 1 if one would be parked or refused.

    Prints its events with topic, key, partition and flags, or the reason to park it and the path of the field. A file
    whose name ends in .xml is read as XML. Nothing is sent, and no signature is checked (see `verify`). Health
    information is masked unless --show-phi asks for it, which writes an audit line.
    """
    if webhook_id:
        check_id(webhook_id)
    settings = load_settings()
    if source_name is not None:
        if profile_name or options or environment:
            raise click.UsageError("--source sets the profile; omit --profile, --option and --environment")
        environment = configured_source(settings, source_name).environment
        profile = open_profiles(settings.sources)[source_name]
    else:
        profile = _profile(profile_name or DEFAULT_PROFILE, options)
    mapper = Mapper(
        profile,
        source=source_name or "source",
        environment=environment or "",
        routing=RoutingTable(settings.kafka.routes),
        partitions=settings.kafka.partitions,
        body_max_bytes=settings.http.body_max_bytes,
        masker=masker_of(as_json=as_json, show_phi=show_phi),
    )
    with audited("map", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, bodies=len(bodies)):
        return int(not show(mapper, bodies, webhook_id=webhook_id, as_json=as_json))


def _profile(name: str, options: Sequence[str]) -> Profile:
    """Build a profile from the options of the command line."""
    given = dict(pairs(options, "=", usage="--option is NAME=VALUE"))
    try:
        return load_profile(name, given)
    except ConfigError as exc:
        raise ConfigError(str(exc) if str(exc).startswith("options.") else f"--profile: {exc}") from None


@click.group(cls=Group)
def mapping() -> None:
    """Check how a mapping file maps a vendor's bodies."""


@mapping.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.argument("bodies", nargs=-1, type=click.Path(path_type=Path))
@click.option("--account-id", default="acct_check", show_default=True, help="Option account_id of the source.")
@click.option("--zone", default="", help="Option zone of the source.")
@click.option("--strict", is_flag=True, help="Exit 1 also for a table or a field that none of the BODIES uses.")
@_shown_options
def check(
    *,
    file: Path,
    bodies: tuple[Path, ...],
    account_id: str,
    zone: str,
    strict: bool,
    show_phi: bool,
    actor: str,
    reason: str,
    as_json: bool,
) -> int:
    """Compile the mapping FILE and show how it maps each of the BODIES; exit 1 if one would be parked.

    Then list the parts of the file that no body uses, and the members that are only kept in `extensions`, as JSON
    pointers. A file whose name ends in .xml is read as XML.

    Health information is masked unless --show-phi asks for it, which writes an audit line.
    """
    options = {"mapping": str(file), "account_id": account_id} | ({"zone": zone} if zone else {})
    try:
        compiled = configure(options)
    except ConfigError as exc:
        raise ConfigError(str(exc).removeprefix("options.mapping: ")) from None
    coverage = Coverage(compiled)
    mapper = Mapper(
        coverage,
        source="check",
        environment="sandbox",
        routing=RoutingTable(),
        partitions=KafkaSettings.model_fields["partitions"].default,
        body_max_bytes=BODY_MAX_BYTES,
        masker=masker_of(as_json=as_json, show_phi=show_phi),
    )
    with audited("mapping.check", actor=actor, reason=reason, dry_run=not show_phi, show_phi=True, file=str(file)):
        is_sound = show(mapper, bodies, as_json=as_json)
        report = coverage.report() if bodies else {}
        if as_json:
            click.echo(orjson.dumps({"mapping": str(file), "sha256": compiled.sha256, **report}))
        else:
            tables = counted(len(compiled.file.events), "[[event]] table")
            click.secho(f"{file}: {tables}, sha256 {compiled.sha256}", dim=True)
            for line in coverage_lines(report):
                click.echo(f"  {line}")
    is_unused = strict and (report["tables_never_fired"] or report["fields_never_given"]) if report else False
    return int(not is_sound or bool(is_unused))


@dataclass(frozen=True, slots=True)
class Mapper:
    """Maps bodies as the ingress does for one source."""

    profile: Profile
    source: str
    environment: str  # of the source; if empty, that of each body
    routing: RoutingTable
    partitions: int
    body_max_bytes: int  # bytes; the ingress refuses a larger body
    masker: Masker | None  # masks health information; None shows it

    def outcome(self, path: Path, *, webhook_id: str = "") -> dict[str, Any]:
        """Return the outcome of the body in a file, as JSON types; without `webhook_id` the id comes from the body."""
        with path.open("rb") as content:
            body, file = content.read(BODY_MAX_BYTES + 1), text_of(os.fsencode(path))
        if len(body) > self.body_max_bytes:
            return {"file": file, "refused": {"code": "body_too_large"}}
        delivery_id, found = preview(
            read_as(self.profile, path),
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
        file = getattr(self.profile, "file", None)
        if park.reason == "unknown_type" and isinstance(file, CompiledFile):
            detail = NO_ELEMENTS if park.field in file.lists else detail if file.reported else NOTHING_HOLDS
        return {
            "reason": park.reason,
            "detail": detail,
            "field": park.field,
            "topic": UNRECOGNIZED_TOPIC,
            "key": key,
            "partition": partition(key.encode(), self.partitions),
            "missing": [*self.profile.missing] if isinstance(self.profile, Coverage) else [],
        }

    def _event(self, event: Event) -> dict[str, Any]:
        value = event.value if self.masker is None else self.masker.mask(RECORDS[event.type], event.value)
        return {
            "id": event.id,
            "type": event.type,
            "topic": self.routing.topic_of_event(event),
            "key": event.key,
            "partition": partition(event.key.encode(), self.partitions),
            "value": plain(value),
        }


def read_as(profile: Profile, path: Path) -> Profile:
    """Return the profile for the format of a file: XML if its name ends in .xml, else JSON."""
    reading_xml = getattr(profile, "reading_xml", None)
    return reading_xml() if reading_xml and path.suffix.lower() == ".xml" else profile


def unknown_words(model: type[ContractRecord], value: Mapping[str, Any], path: str = "/data") -> Iterator[str]:
    """Yield the paths of enum fields whose value in the body is unknown; array indexes are `*`."""
    for name, info in model.model_fields.items():
        kind, item = plain_type(info), value.get(name)
        if words_of(kind) and value.get(raw_name(name)):
            yield f"{path}/{name}"
        is_list = get_origin(kind) is list
        inner = get_args(kind)[0] if is_list else kind
        if isinstance(inner, type) and issubclass(inner, ContractRecord):
            at = f"{path}/{name}/*" if is_list else f"{path}/{name}"
            for each in item or () if is_list else (item or {},):
                yield from unknown_words(inner, each, at)


def show(mapper: Mapper, bodies: Iterable[Path], *, as_json: bool, webhook_id: str = "") -> bool:
    """Print the outcome of each body, and return whether all were mapped to events."""
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


def lines(document: Mapping[str, Any]) -> Text:
    """Return the lines of an outcome, for people."""
    text = Text().append(f"{document['file']}\n", "cyan")
    if refused := document.get("refused"):
        return text.append(f"  refused: {refused['code']}\n", "red")
    if parked := document.get("parked"):
        words = " ".join(filter(None, (parked["reason"], parked["detail"], parked["field"])))
        text.append(f"  parked: {words}\n", "red")
        if parked["detail"] == "missing_field" and len(parked["missing"]) > 1:
            text.append(f"  missing: {', '.join(parked['missing'])}\n", "red")
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
        yield f"unknown fields kept in extensions: {len({pointer for _, pointer in unknown})}"
