"""Batches as clients of other languages have written them: `tests/data/batches`, each a log of three records.

Written by franz-go 1.22 and Sarama 1.61 to a topic of Kafka 4; those of Java and librdkafka are made anew by
tests/integration/test_compressed_batches.py.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from aiokafka.record.memory_records import MemoryRecords  # noqa: TID251 - what the client unpacks batches by

RECORDED = sorted((Path(__file__).parents[1] / "data" / "batches").glob("*.bin"))


@pytest.mark.parametrize("path", RECORDED, ids=[path.stem for path in RECORDED])
def test_a_batch_of_another_language_is_unpacked(path: Path) -> None:
    batches = MemoryRecords(path.read_bytes())
    records = []
    while batches.has_next():
        batch = batches.next_batch()
        assert batch.validate_crc()
        records += [(each.offset, each.key, each.value, tuple(each.headers)) for each in batch]

    assert records == [
        (number, b"rx_1", f"event-{number} ".encode() * 400, (("ce_id", f"evt_{number}".encode()),))
        for number in range(3)
    ]


def test_each_codec_of_each_client_is_recorded() -> None:
    assert len(RECORDED) == 2 * 4
