"""Records and topic-partitions as topic readers return them, without types of the Kafka client."""

from collections.abc import Sequence
from typing import NamedTuple


class TopicPartition(NamedTuple):
    """A topic-partition."""

    topic: str
    partition: int


class ConsumedRecord(NamedTuple):
    """A record read from a topic. Kafka allows null as a header's value; here it is `b""`."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]

    def __repr__(self) -> str:
        """Show only the position: key and value are health information."""
        return f"ConsumedRecord({self.topic}/{self.partition}@{self.offset})"

    def header(self, name: str) -> str:
        """Return the value of the last header with that name, as Kafka's `lastHeader`; an empty string if absent."""
        for each, content in reversed(self.headers):
            if each == name:
                return content.decode("utf-8", "replace")
        return ""
