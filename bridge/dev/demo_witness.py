"""The demo's own eyes on Kafka: reads what the topics hold, apart from the part that wrote it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Seen:
    """One record read back.

    Attributes:
        payload: Its bytes as Kafka holds them.
        record: Full name of the Avro record; empty if the payload cannot be decoded, and then `value` is empty too.
    """

    topic: str
    partition: int
    offset: int
    key: str
    headers: Mapping[str, str] = field(repr=False)
    payload: bytes = field(repr=False)
    record: str = ""
    value: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        """Topic, partition and offset in one word."""
        return f"{self.topic}/{self.partition}@{self.offset}"


class Witness(Protocol):
    """Reads the topics of the contract."""

    async def look(self) -> Sequence[Seen]:
        """Return every record written since the tour began, in the order of each partition."""


def with_id(seen: Sequence[Seen], delivery_id: str) -> list[Seen]:
    """Return the records of one event or delivery."""
    return [each for each in seen if each.headers.get("ce_id") == delivery_id]


def holding(seen: Sequence[Seen], marker: str) -> list[Seen]:
    """Return the records that hold a text anywhere: key, headers or bytes."""
    sought = marker.encode()
    return [
        each
        for each in seen
        if marker in each.key or any(marker in content for content in each.headers.values()) or sought in each.payload
    ]
