"""Does a decoded record say exactly what was sent; written apart from the profile, so that it can disagree with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any

# Envelope name on the wire -> field of the record that leads every event.
ENVELOPE = {
    "id": "event_id",
    "type": "event_type",
    "version": "contract_version",
    "timestamp": "occurred_at",
    "source": "origin_source",
    "environment": "environment",
    "account_id": "account_id",
    "sequence": "sequence",
    "correlation_id": "correlation_id",
}
# What the bridge adds by itself.
ADDED = frozenset({"received_at", "source"})


def differences(sent: Mapping[str, Any], value: Mapping[str, Any]) -> list[str]:
    """Return the path of each field that was lost, changed or invented on the way; none if all is well."""
    expected = {field: sent.get(name) for name, field in ENVELOPE.items()} | dict(sent["data"])
    return list(_fields(expected, {name: inner for name, inner in value.items() if name not in ADDED}, path=""))


def _fields(sent: Mapping[str, Any], value: Mapping[str, Any], *, path: str) -> Iterator[str]:
    for name in sorted({*sent, *value}):
        yield from _compare(sent.get(name), value.get(name), path=f"{path}/{name}")


def _compare(sent: Any, value: Any, *, path: str) -> Iterator[str]:
    if sent is None:
        # Absent and null are one in Avro; an empty map or list holds nothing that was not sent.
        if value not in (None, {}, []):
            yield path
    elif isinstance(sent, Mapping) and isinstance(value, Mapping):
        yield from _fields(sent, value, path=path)
    elif isinstance(sent, list) and isinstance(value, list) and len(sent) == len(value):
        for inner_sent, inner in zip(sent, value, strict=True):
            yield from _compare(inner_sent, inner, path=f"{path}/*")
    elif not _same(sent, value):
        yield path


def _same(sent: Any, value: Any) -> bool:
    """Compare a JSON scalar with what it should have become."""
    try:
        if isinstance(value, datetime):
            return datetime.fromisoformat(sent) == value
        if isinstance(value, date):
            return date.fromisoformat(sent) == value
        if isinstance(value, Decimal):
            return Decimal(sent) == value
    except (TypeError, ValueError, InvalidOperation):
        return False
    return type(sent) is type(value) and bool(sent == value)
