"""Copy what an order-free handler could not apply to the group's dead-letter topic; no text of an error goes along."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Protocol

from bridge.errors import NotDurableError, TransientError
from bridge.kafka.record import Header, Record
from bridge.kafka.transport import ConsumedRecord
from bridge.settling.failure import Failure

# Headers of the original that say which event it is; all are free of health information but the key itself.
_KEPT = frozenset({"ce_id", "ce_source", "ce_type", "ce_time", "content-type", "traceparent", "__value_schema_id"})


class Producer(Protocol):
    """Writes to Kafka, as the ingress does."""

    async def write(self, topic: str, partition: int, records: Sequence[Record]) -> int:
        """Write as many records as one batch holds; return how many all replicas have.

        Raises:
            NotDurableError: Not written, or not known to be.
        """


def dead_letter_topic(topic: str, group: str) -> str:
    """Return the topic for what a group could not apply of a topic; it needs the same partition count."""
    return f"{topic}.{group}.dlq"


class DeadLetters:
    """Writes dead letters, each acknowledged before its record is settled; one may come twice, none is lost."""

    def __init__(self, producer: Producer, *, group: str, now: Callable[[], datetime] | None = None) -> None:
        """Write for `group`."""
        self._producer = producer
        self._group = group
        self._now = now or (lambda: datetime.now(UTC))

    async def write(self, record: ConsumedRecord, failure: Failure, *, attempts: int, first_at: datetime) -> None:
        """Copy a record: same key, value and partition.

        Raises:
            TransientError: Kafka has not acknowledged it; systemic.
        """
        value = record.value
        copy = Record(
            dead_letter_topic(record.topic, self._group),
            record.partition,
            record.key,  # type: ignore[arg-type]  # a foreign record may have none, and the copy then has none
            value,
            self._headers(record, failure, attempts=attempts, first_at=first_at),
            record.timestamp_ms,
        )
        try:
            await self._producer.write(copy.topic, copy.partition, [copy])
        except NotDurableError as exc:
            raise TransientError(exc.code, systemic=True) from None

    def _headers(self, record: ConsumedRecord, failure: Failure, *, attempts: int, first_at: datetime) -> list[Header]:
        said = {
            "drx_dlq_topic": record.topic,
            "drx_dlq_partition": str(record.partition),
            "drx_dlq_offset": str(record.offset),
            "drx_dlq_group": self._group,
            "drx_dlq_class": failure.cls,
            "drx_dlq_code": failure.code,
            "drx_dlq_sha256": hashlib.sha256(record.value or b"").hexdigest(),
            "drx_dlq_attempts": str(attempts),
            "drx_dlq_first_at": _rfc3339(first_at),
            "drx_dlq_last_at": _rfc3339(self._now()),
        }
        kept = [(name, content) for name, content in record.headers if name in _KEPT]
        return kept + [(name, text.encode()) for name, text in said.items()]


def _rfc3339(moment: datetime) -> str:
    return moment.isoformat(timespec="microseconds").replace("+00:00", "Z")
