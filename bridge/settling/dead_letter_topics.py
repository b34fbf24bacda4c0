"""The dead-letter topics of an order-free consumer: as many partitions as the topics they are for, kept for ever."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.consumer import Consumer
from bridge.errors import ConfigError
from bridge.kafka.admin import FOREVER_MS, TopicSpec, open_admin
from bridge.kafka.connection import Connection
from bridge.kafka.record import MESSAGE_MAX_BYTES
from bridge.settling.dead_letters import dead_letter_topic

# A dead letter has headers of its own beside those of its record: topic, group and code have bounded names.
_HEAD_BYTES = 4 * 1024
# What makes a topic useless for it; the rest is the operator's taste.
_FATAL = {"missing", "partitions"}


async def provide_dead_letter_topics(
    consumer: Consumer, *, connection: Connection, partitions: Mapping[str, int], create: bool
) -> None:
    """See that the topics are there, or `create` those that are missing; nothing for a consumer that parks.

    Args:
        consumer: Whose.
        connection: To Kafka.
        partitions: How many each topic of the consumer has; a dead letter keeps its partition.
        create: Make what is missing instead of refusing.

    Raises:
        ConfigError: One is missing, or has another partition count.
        AdminError: Kafka is away, or refuses.
    """
    if not consumer.order_free:
        return
    async with open_admin(connection) as admin:
        replicas = await admin.default_replication_factor()
        specs = [
            TopicSpec(
                name=dead_letter_topic(topic, consumer.group),
                partitions=count,
                replication_factor=replicas,
                min_insync_replicas=max(1, replicas - 1),
                retention_ms=FOREVER_MS,
                message_max_bytes=MESSAGE_MAX_BYTES + _HEAD_BYTES,
            )
            for topic, count in sorted(partitions.items())
        ]
        if create:
            await admin.create(specs)
        deviations = [each for each in await admin.check(specs) if each.what in _FATAL]
    for each in deviations:
        advice = (
            f"run `drx-consumer init {consumer.name}`"
            if each.what == "missing"
            else f"it needs {each.expected} partitions, as the topic it is for, and has {each.found}"
        )
        msg = f"dead-letter topic {each.topic}: {advice}"
        raise ConfigError(msg)
