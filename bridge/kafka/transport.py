"""Records and partitions as topic readers see them, free of client types."""

from collections.abc import Sequence
from typing import NamedTuple


class Place(NamedTuple):
    """A partition of a topic."""

    topic: str
    partition: int


class ConsumedRecord(NamedTuple):
    """A record read from a topic; a header without a value, which Kafka allows, counts as empty."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    def __repr__(self) -> str:
        """Show only the place: key and value are health information."""
        return f"ConsumedRecord({self.topic}/{self.partition}@{self.offset})"

    def header(self, name: str) -> str:
        """Return the last header of that name as text, like Kafka's `lastHeader`; empty if absent."""
        for each, content in reversed(self.headers):
            if each == name:
                return content.decode("utf-8", "replace")
        return ""
