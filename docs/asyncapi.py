"""AsyncAPI of the topics, from the routing, the schema lock and actual records."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from bridge.avro.schema_ids import RECORDS
from bridge.event import UNRECOGNIZED_TYPE, Delivery, Event, ParkReason
from bridge.kafka.admin import REPLICAS_MAX, TopicSpec, topic_specs
from bridge.kafka.record import UNRECOGNIZED_SCHEMA, Header, event_record, unrecognized_record
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC, RoutingTable
from bridge.registry.loader import LOCK_NAME, bundled
from bridge.settings import KafkaSettings
from docs.examples import examples

Document = dict[str, Any]

AVRO = "application/vnd.apache.avro;version=1.12.0"
# AsyncAPI bindings, "Kafka": the version of these objects.
BINDING = "0.5.0"
HEADERS: Mapping[str, str] = {
    "ce_specversion": "CloudEvents 1.0, binary mode",
    "ce_id": "id of the event; with ce_source it identifies the event and its repeats",
    "ce_source": "configured name of the sender",
    "ce_type": "type of the event",
    "ce_subject": "the record's key",
    "ce_time": "when it happened at the source, RFC 3339 with Z; for an unrecognized delivery, its receipt",
    "content-type": "content type of the value",
    "traceparent": "W3C Trace Context",
    "drx_received_at": "receipt of the delivery, RFC 3339 with Z",
    "drx_key_slot": "slot of the secret that verified the delivery",
    "drx_body_sha256": "SHA-256 of the received body, lower-case hex",
    "drx_schema": "full name of the record in the value",
    "drx_ordinal": "<instance>:<number>; the number rises in the order of acceptance by that instance",
    "drx_mapping": "first 12 hex digits of the SHA-256 of the mapping file that made the event, if one did",
    "drx_part_sha256": "SHA-256 of the event's own part of the body, if its id is of that; else drx_body_sha256 counts",
    "drx_origin": "`replay` or `import` if an operator posted the delivery, and not the sender; in no other record",
    "drx_reason": "why the delivery is not a valid event",
}
OPTIONAL = frozenset({"drx_mapping", "drx_part_sha256", "drx_origin"})
CHANNELS: Mapping[str, tuple[str, str]] = {
    PRESCRIPTIONS_TOPIC: (
        "Every event about a prescription, all types, in one order per key.",
        "Prescription id, of vendors with a prefix; req:<request id> for a renewal or change request without one.",
    ),
    ACCOUNTS_TOPIC: (
        "Events about prescribers and accounts.",
        "Prescriber id; account id for a system.ping and an other.reported.",
    ),
    UNRECOGNIZED_TOPIC: (
        "Genuine deliveries that are not valid events: exact bytes, unchecked, and the reason. Needs its own ACL.",
        "Prescription id if it could be read, else the webhook id.",
    ),
}


def asyncapi() -> Document:
    """Return the document."""
    routing = RoutingTable()
    topics = {kind: routing.topics_of_type(kind) for kind in RECORDS} | {UNRECOGNIZED_TYPE: (UNRECOGNIZED_TOPIC,)}
    kafka = KafkaSettings()
    specs = topic_specs(
        routing.topics,
        partitions=kafka.partitions,
        replication_factor=REPLICAS_MAX,
        message_max_bytes=kafka.message_max_bytes,
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "drx-bridge",
            "version": version("drx-bridge"),
            "description": "What the bridge writes to Kafka. Values are Avro in Confluent's wire format: a byte 0, the "
            "schema id in four bytes, big-endian, then the Avro body. Subjects are <topic>-<record>. Keys are UTF-8. "
            f"The schemas are those of {LOCK_NAME}.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/avro",
        "channels": {spec.name: _channel(spec, topics) for spec in specs},
        "operations": {f"write_{spec.name}": _operation(spec.name) for spec in specs},
        "components": {
            "messages": {kind: _message(kind, *to) for kind, to in topics.items()},
            "messageTraits": {"event": _trait(_event_headers()), "unrecognized": _trait(_unrecognized_headers())},
        },
    }


def _channel(spec: TopicSpec, topics: Mapping[str, tuple[str, ...]]) -> Document:
    text, _ = CHANNELS[spec.name]
    configuration = {
        "cleanup.policy": [spec.configs["cleanup.policy"]],
        "retention.ms": spec.retention_ms,
        "max.message.bytes": spec.message_max_bytes,
    }
    return {
        "address": spec.name,
        "description": text,
        "messages": {kind: {"$ref": f"#/components/messages/{kind}"} for kind, to in topics.items() if spec.name in to},
        "bindings": {
            "kafka": {
                "topic": spec.name,
                "partitions": spec.partitions,
                "replicas": spec.replication_factor,
                "topicConfiguration": configuration,
                "bindingVersion": BINDING,
            }
        },
    }


def _operation(topic: str) -> Document:
    return {"action": "send", "channel": {"$ref": f"#/channels/{topic}"}, "summary": "The bridge writes these records."}


def _message(kind: str, *topics: str) -> Document:
    record = RECORDS.get(kind, UNRECOGNIZED_SCHEMA)
    entries = bundled().entries
    (place,) = (number for number, entry in enumerate(entries) if entry is bundled().latest()[record])
    text = str(entries[place].schema["doc"])
    trait = "unrecognized" if kind == UNRECOGNIZED_TYPE else "event"
    key = " Of an account: ".join(CHANNELS[topic][1] for topic in topics)
    return {
        "name": record,
        "title": kind,
        "summary": text,
        "payload": {
            "schemaFormat": AVRO,
            "schema": {"$ref": f"../schemas/{LOCK_NAME}#/schemas/{place}/schema"},
        },
        "traits": [{"$ref": f"#/components/messageTraits/{trait}"}],
        **({"examples": [{"payload": examples()[kind].value}]} if kind in RECORDS else {}),
        "bindings": {
            "kafka": {
                "key": {"type": "string", "description": key},
                "schemaIdLocation": "payload",
                "schemaIdPayloadEncoding": "confluent",
                "schemaLookupStrategy": "TopicRecordNameStrategy",
                "bindingVersion": BINDING,
            }
        },
    }


def _trait(headers: list[Header]) -> Document:
    names = [name for name, _ in headers]
    properties = {name: {"type": "string", "description": HEADERS[name]} for name in names}
    constants = {
        name: {"const": content.decode()} for name, content in headers if name in {"ce_specversion", "content-type"}
    }
    for name, constant in constants.items():
        properties[name] |= constant
    return {
        "headers": {
            "type": "object",
            "required": [name for name in names if name not in OPTIONAL],
            "properties": properties,
        }
    }


def _event_headers() -> list[Header]:
    delivery = _delivery()
    moment = delivery.received_at
    event = Event(
        id="", type="", source="", key="", occurred_at=moment, received_at=moment, value={}, mapping="-", sha256="-"
    )
    return event_record(event, delivery, topic="", partition=0, value=b"", schema="", ordinal=b"").headers


def _unrecognized_headers() -> list[Header]:
    return unrecognized_record(_delivery(), ParkReason("unexpected"), partition=0, value=b"").headers


def _delivery() -> Delivery:
    return Delivery(
        source="",
        environment="",
        id="",
        received_at=datetime(2026, 1, 1, tzinfo=UTC),
        body=b"",
        body_sha256="",
        key_slot="",
        traceparent="",
        headers={},
        origin="-",
    )
