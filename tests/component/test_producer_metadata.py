"""How often a producer asks for metadata."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.client import AIOKafkaClient  # noqa: TID251 - what it does by itself is limited
from aiokafka.structs import PartitionMetadata  # noqa: TID251 - as above

from bridge.errors import NotDurableError
from bridge.kafka import producer as producer_module
from bridge.kafka.connection import Connection
from bridge.kafka.producer import LEADER_LOOKS, Generation
from bridge.kafka.record import Record

TOPIC = "drx.prescriptions.v1"


async def test_a_write_to_a_partition_without_a_leader_floods_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks again at each answer for as long as the batch waits."""
    asked = 0

    async def answer(_self: Any, _cluster: object, _topics: object) -> bool:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return True

    monkeypatch.setattr(AIOKafkaClient, "_metadata_update", answer)
    monkeypatch.setattr(producer_module, "REQUEST_TIMEOUT_MS", 500)
    monkeypatch.setattr(producer_module, "LEADER_LOOK_S", 0.001)
    generation = Generation(Connection("127.0.0.1:1").options())
    client = generation._client
    client.client.cluster._partitions = {TOPIC: {0: PartitionMetadata(TOPIC, 0, -1, [3], [3], 5)}}
    client._txn_manager.set_pid_and_epoch(1, 0)
    client.client._sync_task = asyncio.create_task(client.client._md_synchronizer())
    await client._sender.start()
    try:
        with pytest.raises(NotDurableError, match="kafka_unavailable"):
            await generation.write(TOPIC, 0, [Record(TOPIC, 0, b"rx_1", b"v", [], 0)])
    finally:
        await generation.end()

    assert asked == LEADER_LOOKS
