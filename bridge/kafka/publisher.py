"""From the outcome of a delivery to acknowledged records, each with its place, headers and ordinal."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from itertools import count

from bridge.event import Delivery, Event, ParkReason
from bridge.kafka.lanes import Lanes, Producer
from bridge.kafka.record import (
    UNRECOGNIZED_SCHEMA,
    Record,
    event_record,
    unrecognized_key,
    unrecognized_record,
    unrecognized_value,
)
from bridge.kafka.routing import RoutingTable, partition

# Full record name and value to wire format.
Encode = Callable[[str, Mapping[str, object]], bytes]


class Publisher:
    """Writes directly to Kafka; what Kafka does not take in time stays with the sender."""

    def __init__(
        self,
        *,
        producer: Producer,
        encode: Encode,
        schemas: Mapping[str, str],
        routing: RoutingTable,
        partitions: int,
        instance: str,
        first_ordinal: int,
        deadline_s: float = 4.0,
        queue_max: int = 10_000,
        queue_max_bytes: int = 128 * 1024 * 1024,
    ) -> None:
        """Publish under the name of `instance`.

        Args:
            producer: The way to Kafka.
            encode: Raises `EncodeError` when a value does not fit its schema.
            schemas: Event type to full record name.
            routing: Event type to topic.
            partitions: Partitions that every topic must have; part of the key order.
            instance: Name of this process, distinct for each replica.
            first_ordinal: Above every ordinal this instance ever gave: microseconds since the epoch at the start.
            deadline_s: From acceptance to acknowledgement.
            queue_max: Records waiting or in flight.
            queue_max_bytes: Bytes of them.
        """
        self._lanes = Lanes(
            producer=producer, deadline_s=deadline_s, queue_max=queue_max, queue_max_bytes=queue_max_bytes
        )
        self._encode = encode
        self._schemas = schemas
        self._routing = routing
        self._partitions = partitions
        self._instance = instance
        self._ordinals = count(first_ordinal)

    def publish(self, delivery: Delivery, outcome: tuple[Event, ...] | ParkReason) -> Awaitable[None]:
        """Accept a delivery; the awaitable ends when all in-sync replicas have every record of it.

        Raises:
            EncodeError: A value does not fit its schema: a bug of ours, and nothing was accepted.
            NotDurableError: At once, or from the awaitable; a record already handed to Kafka may still appear.
        """
        self._lanes.check_open()
        if isinstance(outcome, ParkReason):
            return self._lanes.enqueue([self._unrecognized(delivery, outcome)])
        return self._lanes.enqueue([self._event(event, delivery) for event in outcome])

    async def close(self, timeout_s: float) -> None:
        """Take nothing more, finish what was taken, then close the producer; all of it within `timeout_s`."""
        await self._lanes.close(timeout_s)

    def _event(self, event: Event, delivery: Delivery) -> Record:
        topic = self._routing.topic(event.type)
        schema = self._schemas[event.type]
        return event_record(
            event,
            delivery,
            topic=topic,
            partition=partition(event.key.encode(), self._partitions),
            value=self._encode(schema, event.value),
            schema=schema,
            ordinal=f"{self._instance}:{next(self._ordinals)}".encode(),
        )

    def _unrecognized(self, delivery: Delivery, park: ParkReason) -> Record:
        value = self._encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, park))
        number = partition(unrecognized_key(delivery, park), self._partitions)
        return unrecognized_record(delivery, park, partition=number, value=value)
