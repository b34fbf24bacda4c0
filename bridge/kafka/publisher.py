"""Turn the outcome of a delivery into records, each with its partition, headers and ordinal.

`partition_writer.py` makes them durable: in Kafka or, while that is away, on disk.
"""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass

from bridge.errors import TooLargeError
from bridge.event import Delivery, Durable, Event, Identity, ParkReason, identity_in
from bridge.kafka.accepted import Accepted
from bridge.kafka.partition_writer import PartitionWriters
from bridge.kafka.record import (
    UNRECOGNIZED_SCHEMA,
    event_record,
    fits,
    unrecognized_key,
    unrecognized_record,
    unrecognized_value,
)
from bridge.kafka.routing import RoutingTable, partition

# From full record name and value, possibly encoded already, to wire format.
EncodeRecord = Callable[[str, Mapping[str, object] | bytes], bytes]


def ordinals(last: Callable[[], int], *, now_ns: Callable[[], int] = time.time_ns) -> Iterator[int]:
    """Number records in the order of acceptance, starting at the clock (Unix microseconds) or above the spool's `last`.

    Ordinals in Kafka are not known here: if the clock is set back between two processes, ordinals may decrease.
    """
    ordinal = now_ns() // 1000 - 1
    while True:
        ordinal = max(ordinal, last()) + 1
        yield ordinal


@dataclass(kw_only=True, eq=False, repr=False)
class Publisher:
    """Makes the outcome of a delivery durable, in Kafka or, while that is away, on disk."""

    writers: PartitionWriters
    encode: EncodeRecord
    schemas: Mapping[str, str]  # event type to full record name
    routing: RoutingTable
    partitions: int  # of every topic; key order depends on it
    instance: str  # distinct for each replica
    ordinals: Iterator[int]
    message_max_bytes: int  # `max.message.bytes` of the topics

    def publish(self, delivery: Delivery, outcome: tuple[Event, ...] | ParkReason) -> Awaitable[Durable]:
        """Accept a delivery; the awaitable returns how its records became durable, once all are.

        Raises `EncodeError` (a bug of ours) and `TooLargeError`, after which nothing was accepted. Raises
        `NotDurableError`, immediately or by the awaitable; a record already handed to Kafka may still appear.
        """
        self.writers.check_open()
        if isinstance(outcome, ParkReason):
            return self.writers.enqueue([self._unrecognized(delivery, outcome)])
        return self.writers.enqueue([self._event(event, delivery) for event in outcome])

    def _event(self, event: Event, delivery: Delivery) -> Accepted:
        topic = self.routing.topic_of_event(event)
        schema = self.schemas[event.type]
        ordinal = next(self.ordinals)
        record = event_record(
            event,
            delivery,
            topic=topic,
            partition=partition(event.key.encode(), self.partitions),
            value=self.encode(schema, event.encoded or event.value),
            schema=schema,
            ordinal=f"{self.instance}:{ordinal}".encode(),
        )
        if not fits(record, self.message_max_bytes):
            # If accepted, the brokers would always refuse it, and block everything behind it.
            raise TooLargeError
        return Accepted(record, identity_in(delivery, event), ordinal)

    def _unrecognized(self, delivery: Delivery, park: ParkReason) -> Accepted:
        value = self.encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, park))
        number = partition(unrecognized_key(delivery, park), self.partitions)
        record = unrecognized_record(delivery, park, partition=number, value=value)
        identity = Identity(delivery.source, delivery.id, delivery.body_sha256, park.reason)
        return Accepted(record, identity, next(self.ordinals))
