"""A disk that hangs during an outage shorter than that: Kafka has its partitions back when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bridge.errors import NotDurableError
from bridge.event import Durable
from bridge.kafka.partition_writer import Accepted, WriterLimits
from tests.builders import identity_in
from tests.component.test_partition_writer import HANG_S, until
from tests.fakes import FakeProducer
from tests.fault_disk import FaultDisk
from tests.spooling import PARTITION, a_record, make_spool, make_writers, open_spool

TOPIC, _ = PARTITION


@pytest.mark.parametrize("answered", [True, False], ids=["acknowledged late", "answered 503 and sent again"])
async def test_a_partition_is_direct_again_while_the_disk_still_hangs(tmp_path: Path, *, answered: bool) -> None:
    disk = FaultDisk(tmp_path)
    kept = make_spool(tmp_path, disk=disk, stalled_s=0.1)
    producer = FakeProducer({TOPIC: 12})
    writers, _ = make_writers(kept.spool, producer=producer, limits=WriterLimits(deadline_s=0.5, spool_after_s=0.1))

    def send(number: int) -> asyncio.Future[Durable]:
        record = a_record(number)
        return writers.enqueue([Accepted(record, identity_in(record), number)])

    async with asyncio.timeout(HANG_S):
        await kept.spool.open(writers)
        disk.released.clear()
        producer.hold()
        producer.failure = None if answered else "outcome_unknown"
        first = send(1)
        await until(lambda: kept.spool.code == "stalled")
        producer.flow()
        if answered:
            assert await first == "committed"
        else:
            with pytest.raises(NotDurableError, match="deadline"):
                await first
            producer.failure = None
        await until(lambda: not writers.spooling)
        if not answered:
            assert await send(1) == "committed"
        assert await send(2) == "committed"
        assert kept.spool.code == "stalled"

        disk.released.set()
        await until(lambda: not kept.spool.code and not kept.spool.depth(PARTITION) and not writers.spooling)
        assert await send(3) == "committed"
        await writers.close(1)
        await kept.spool.close()

    assert [identity_in(record).id for record in producer.records] == ["evt_1", "evt_2", "evt_3"]
    async with open_spool(tmp_path) as again:
        assert again.found == []
