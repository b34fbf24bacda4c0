"""What the producer takes of aiokafka to queue a batch; a release that changes it must not pass unseen."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition  # noqa: TID251 - the bare library
from aiokafka.cluster import ClusterMetadata  # noqa: TID251 - as above

TOPIC = "drx.prescriptions.v1"


@pytest.fixture
async def client(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Any]:
    """One that was never started, so that nothing is sent, and that knows the topic."""
    monkeypatch.setattr(ClusterMetadata, "partitions_for_topic", lambda *_: {0, 1})
    client = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1", acks="all", enable_idempotence=True, linger_ms=0)
    yield client
    client._closed = True  # else its finalizer complains that nobody called `stop()`


def a_batch(client: Any) -> Any:
    builder = client.create_batch()
    assert builder.append(timestamp=1, key=b"rx_1", value=b"v", headers=[("ce_id", b"evt_1")]) is not None
    return builder


async def test_a_batch_is_queued_by_one_call_as_by_the_public_one(client: Any) -> None:
    accumulator = client._message_accumulator
    public, ours = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)

    await client.send_batch(a_batch(client), TOPIC, partition=0)
    accumulator._waiter_future = accumulator._loop.create_future()
    batch = accumulator._append_batch(a_batch(client), ours)

    assert accumulator._waiter_future.done()  # the sender is woken
    assert list(accumulator._batches[ours]) == [batch]
    (other,) = accumulator._batches[public]
    assert (type(other), other._ttl, other._linger_time) == (type(batch), batch._ttl, batch._linger_time)
    assert (other.record_count, other.retry_count) == (batch.record_count, batch.retry_count) == (1, 0)


async def test_its_future_has_the_offset_or_what_went_wrong(client: Any) -> None:
    place = TopicPartition(TOPIC, 1)
    written, refused = (client._message_accumulator._append_batch(a_batch(client), place) for _ in range(2))

    for batch in (written, refused):
        batch.drain_ready()  # as the sender does first; else another future fails that nobody asks
    written.done(base_offset=42)
    refused.failure(exception=LookupError())

    assert (await written.future).offset == 42
    with pytest.raises(LookupError):
        await refused.future


async def test_an_answer_after_the_writer_has_gone_harms_nothing(client: Any) -> None:
    batch = client._message_accumulator._append_batch(a_batch(client), TopicPartition(TOPIC, 1))

    batch.future.cancel()
    batch.done(base_offset=42)

    assert batch.future.cancelled()
