"""Records that the running process cannot read back are no longer known as spooled, so a repeat is accepted again."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.kafka.accepted import Accepted
from bridge.kafka.partition_writer import PartitionWriters, WriterLimits
from bridge.known.known_ids import KnownIds
from tests.builders import identity_in
from tests.fakes import FakeProducer
from tests.fault_disk import FaultDisk
from tests.spooling import PARTITION, a_record, altered, make_spool, segments
from tests.waiting import HANG_S, until

TOPIC, _ = PARTITION
NUMBERS = range(1, 7)


def alter(directory: Path, _disk: FaultDisk) -> None:
    (path,) = segments(directory)
    path.write_bytes(altered(path.read_bytes(), 100))


def remove(directory: Path, _disk: FaultDisk) -> None:
    for path in segments(directory):
        path.unlink()


def fail(_directory: Path, disk: FaultDisk) -> None:
    disk.unreadable = lambda _path, start, _end: start == 0


@pytest.mark.parametrize("spoil", [alter, remove, fail])
async def test_a_repeat_of_lost_data_is_delivered(tmp_path: Path, spoil: Callable[[Path, FaultDisk], None]) -> None:
    disk = FaultDisk(tmp_path)
    kept = make_spool(tmp_path, disk=disk, order_s=0.0)
    producer = FakeProducer({TOPIC: 12})
    known_ids = KnownIds(windows_s={"drx": 86_400}, capacity=1000)
    known_ids.finished = True
    writers = PartitionWriters(
        producer=producer,
        spool=kept.spool,
        known_ids=known_ids,
        late_acks=Counter("late", "late", registry=CollectorRegistry()),
        limits=WriterLimits(),
    )

    async def send(number: int) -> str:
        record = a_record(number)
        identity = identity_in(record)
        if not known_ids.begin_new([identity]):
            return "repeat"
        return await writers.enqueue([Accepted(record, identity, number)])

    async with asyncio.timeout(HANG_S):
        await kept.spool.open(writers)
        producer.connected = False
        assert [await send(number) for number in NUMBERS] == ["spooled"] * 6
        assert await send(1) == "repeat"
        spoil(tmp_path, disk)
        producer.connected = True
        await until(lambda: not writers.spooling)
        lost = {f"evt_{number}" for number in NUMBERS} - {identity_in(record).id for record in producer.records}
        assert "evt_1" in lost

        for number in NUMBERS:
            assert await send(number) == ("committed" if f"evt_{number}" in lost else "repeat")
        await writers.close(1)
        await kept.spool.close()

    assert sorted(identity_in(record).id for record in producer.records) == [f"evt_{number}" for number in NUMBERS]
