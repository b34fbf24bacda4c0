"""`drx-bridge schemas flink|masks`: generate configuration for other tools that read our topics."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

import click

from bridge.avro.schema_ids import RECORDS
from bridge.kafka.routing import RoutingTable
from bridge.registry.loader import bundled
from bridge.registry.schemas import expand, resolve
from bridge.settings import load_settings

_FLINK_TYPES = {"string": "STRING", "int": "INT", "long": "BIGINT", "boolean": "BOOLEAN", "bytes": "BYTES"}
_REPLACEMENT = "•••"


@click.command()
@click.argument("types", nargs=-1, type=click.Choice(sorted(RECORDS)), metavar="[TYPE]…")
@click.option("--bootstrap-servers", default="localhost:9092", show_default=True, help="host:port,… of the brokers.")
@click.option("--registry", default="http://localhost:8081", show_default=True, help="URL of the registry.")
def flink(*, types: Sequence[str], bootstrap_servers: str, registry: str) -> None:
    """Print a Flink SQL statement for a table over event types; by default all types about prescriptions."""
    routing = RoutingTable(load_settings().kafka.routes)
    topic = routing.topic_of_type("prescription.created")
    types = types or [each for each in RECORDS if routing.topic_of_type(each) == topic]
    named: dict[str, Any] = {}
    columns, left_out = _columns(types, named)
    fields = [_nullable_field(name, type_) for name, type_ in columns.items()]
    reader_schema = resolve({"type": "record", "name": "record", "fields": fields}, named)
    options = {
        "connector": "kafka",
        "topic": ";".join(dict.fromkeys(routing.topic_of_type(each) for each in types)),
        "properties.bootstrap.servers": bootstrap_servers,
        "properties.isolation.level": "read_committed",
        "scan.startup.mode": "earliest-offset",
        "key.format": "raw",
        "key.fields": "record_key",
        "value.format": "avro-confluent",
        "value.fields-include": "EXCEPT_KEY",
        "value.avro-confluent.url": registry,
        # Without a reader schema, Flink treats enums as strings and fails to read them.
        "value.avro-confluent.schema": json.dumps(reader_schema, separators=(",", ":")),
    }
    lines = [
        "`record_key` STRING",
        *(f"`{name}` {_flink_type(type_, named)}" for name, type_ in columns.items()),
        *(f"`{name}_ltz` AS TO_TIMESTAMP_LTZ(`{name}` / 1000, 3)" for name in ("occurred_at", "received_at")),
        "`headers` MAP<STRING, BYTES> METADATA VIRTUAL",
        "`partition` INT METADATA VIRTUAL",
        "`offset` BIGINT METADATA VIRTUAL",
        "WATERMARK FOR `received_at_ltz` AS `received_at_ltz` - INTERVAL '10' SECOND",
    ]
    for name, differing in left_out.items():
        click.echo(f"-- without {name}, whose type differs between {', '.join(differing)}")
    with_ = ",\n  ".join(f"'{name}' = '{value}'" for name, value in options.items())
    click.echo("CREATE TABLE drx_events (\n  " + ",\n  ".join(lines) + f"\n) WITH (\n  {with_}\n);")


@click.command()
@click.option("--for", "tool", type=click.Choice(["akhq", "kafbat"]), required=True, help="Tool to configure.")
def masks(*, tool: Literal["akhq", "kafbat"]) -> None:
    """Print the masking configuration of AKHQ or kafbat UI that hides health information in our topics."""
    topics = RoutingTable(load_settings().kafka.routes).topics
    leaves = [leaf for locked in bundled().latest().values() for leaf in _leaves(expand(locked.schema), is_phi=False)]
    phi = {name for name, is_phi in leaves if is_phi}
    if tool == "kafbat":
        click.echo(_kafbat(topics, sorted(phi)))
    else:
        click.echo(_akhq(topics, sorted({name for name, _ in leaves} - phi)))


def _columns(types: Iterable[str], named: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return the type of each column, and the names of columns whose type differs between event types.

    Named records and enums are added to `named`.
    """
    columns: dict[str, Any] = {}
    having: dict[str, list[str]] = {}
    differing = set[str]()
    for event_type in types:
        for field in expand(bundled().latest()[RECORDS[event_type]].schema)["fields"]:
            name, plain = field["name"], _plain(field["type"], named)
            having.setdefault(name, []).append(event_type)
            if columns.setdefault(name, plain) != plain:
                differing.add(name)
    return (
        {name: plain for name, plain in columns.items() if name not in differing},
        {name: having[name] for name in having if name in differing},
    )


def _plain(type_: Any, named: dict[str, Any]) -> Any:
    """Simplify a type for Flink: no null, documentation or PHI classes; instants as numbers."""
    if isinstance(type_, list):
        (type_,) = (each for each in type_ if each != "null")
    if isinstance(type_, str):
        return type_
    if type_.get("logicalType") == "timestamp-micros":  # Flink's Avro format refuses `timestamp(6)`
        return "long"
    plain = {name: value for name, value in type_.items() if name not in {"doc", "default"}}
    for part in {"items", "values"} & plain.keys():
        plain[part] = _plain(plain[part], named)
    if "fields" in plain:
        plain["fields"] = [_nullable_field(each["name"], _plain(each["type"], named)) for each in plain["fields"]]
    if "name" not in plain:
        return plain
    named[plain["name"]] = plain
    return plain["name"]


def _nullable_field(name: str, type_: Any) -> dict[str, Any]:
    return {"name": name, "type": ["null", type_], "default": None}


def _flink_type(type_: Any, named: Mapping[str, Any]) -> str:
    if isinstance(type_, str) and type_ in _FLINK_TYPES:
        return _FLINK_TYPES[type_]
    type_ = named[type_] if isinstance(type_, str) else type_
    kind, text = type_.get("logicalType", type_["type"]), "STRING"  # an enum
    if kind == "record":
        fields = (f"`{each['name']}` {_flink_type(each['type'][1], named)}" for each in type_["fields"])
        text = f"ROW<{', '.join(fields)}>"
    elif kind == "array":
        text = f"ARRAY<{_flink_type(type_['items'], named)} NOT NULL>"
    elif kind == "map":
        text = f"MAP<STRING NOT NULL, {_flink_type(type_['values'], named)} NOT NULL>"
    elif kind == "date":
        text = "DATE"
    elif kind == "decimal":
        text = f"DECIMAL({type_['precision']}, {type_['scale']})"
    return text


def _leaves(type_: Any, *, is_phi: bool) -> Iterator[tuple[str, bool]]:
    """Yield the name of each leaf field, and whether it or an enclosing field has a PHI class."""
    for branch in type_ if isinstance(type_, list) else [type_]:
        if not isinstance(branch, Mapping):
            continue
        for field in branch.get("fields", ()):
            within = is_phi or "phi" in field
            inner = [*_leaves(field["type"], is_phi=within)]
            yield from inner or [(field["name"], within)]
        yield from _leaves(branch.get("items"), is_phi=is_phi)


def _akhq(topics: Sequence[str], shown: Sequence[str]) -> str:
    """Return the masks of AKHQ: it shows only the listed fields of a topic, at any depth."""
    filters = "".join(
        f"""
        - description: Fields without health information
          topic: {topic}
          keys: [{", ".join(shown)}]"""
        for topic in topics
    )
    return f"""\
akhq:
  security:
    data-masking:
      mode: json_mask_by_default
      json-mask-replacement: "{_REPLACEMENT}"
      json-filters:{filters}"""


def _kafbat(topics: Sequence[str], hidden: Sequence[str]) -> str:
    """Return the masks of kafbat UI: it hides the listed fields, at any depth, and all record keys."""
    pattern = "|".join(topic.replace(".", "[.]") for topic in topics)
    return f"""\
# Below each entry of kafka.clusters:
masking:
  - type: REPLACE
    replacement: "{_REPLACEMENT}"
    fields: [{", ".join(hidden)}]
    topicKeysPattern: {pattern}
    topicValuesPattern: {pattern}"""
