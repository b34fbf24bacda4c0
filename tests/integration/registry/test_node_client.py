"""@kafkajs/confluent-schema-registry: what most Node services read Avro with."""

import base64
import json
import subprocess
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from bridge.registry.loader import bundled
from bridge.registry.schemas import expand
from tests.integration.registry.registry_parts import Sample, Served

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
NODE_TIMEOUT_S = 60


@pytest.fixture
def registry(serve: Callable[..., Served]) -> Served:
    return serve()


def run(node: list[str], registry: Served, samples: list[Sample]) -> Any:
    ours = bundled().entries[0]
    request = {
        "url": registry.url,
        "payloads": [base64.b64encode(sample.payload).decode() for sample in samples],
        "ours": {"subject": ours.subject},
    }
    result = subprocess.run(  # noqa: S603 - our own script
        node, input=json.dumps(request), capture_output=True, text=True, timeout=NODE_TIMEOUT_S, check=False
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def as_node_shows(value: Any, schema: Any) -> Any:
    """Say a value as avsc does without logical types: micros, days, and the two's complement bytes of a decimal."""
    if isinstance(schema, list):
        return None if value is None else as_node_shows(value, next(branch for branch in schema if branch != "null"))
    kind = schema["type"] if isinstance(schema, dict) else schema
    if kind == "record":
        return {field["name"]: as_node_shows(value[field["name"]], field["type"]) for field in schema["fields"]}
    if kind == "array":
        return [as_node_shows(each, schema["items"]) for each in value]
    if isinstance(value, Decimal):
        whole = int(value.scaleb(schema["scale"]))
        return {"bytes": base64.b64encode(whole.to_bytes(whole.bit_length() // 8 + 1, signed=True)).decode()}
    if isinstance(value, datetime):
        return (value - EPOCH) // timedelta(microseconds=1)
    return (value - EPOCH.date()).days if isinstance(value, date) else value


def test_node_reads_every_record_and_writes_the_same_bytes(
    node: list[str], registry: Served, samples: list[Sample]
) -> None:
    answer = run(node, registry, samples)

    schemas = {record: expand(schema) for record, schema in bundled().schemas().items()}
    assert answer["decoded"] == [as_node_shows(sample.value, schemas[sample.record]) for sample in samples]
    assert [base64.b64decode(each) for each in answer["encoded"]] == [sample.payload for sample in samples]


def test_node_finds_our_ids(node: list[str], registry: Served, samples: list[Sample]) -> None:
    answer = run(node, registry, samples[:1])

    assert answer["latest"] == bundled().entries[0].id
    assert answer["unknown"] == {"status": 404, "message": "Confluent_Schema_Registry - Schema 999 not found"}
