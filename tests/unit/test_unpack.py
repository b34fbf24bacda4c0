"""Batches of clients in other languages are unpacked, unless the result would exceed the limit."""

import subprocess
import sys
from pathlib import Path

import cramjam
import pytest
from aiokafka import codec  # noqa: TID251 - what the client unpacks batches by
from aiokafka.record.default_records import DefaultRecordBatch, DefaultRecordBatchBuilder  # noqa: TID251 - as above
from aiokafka.record.memory_records import MemoryRecords  # noqa: TID251 - as above

from bridge.kafka import unpack
from bridge.kafka.unpack import UnpackError, bound_unpacking

CODECS = {
    "gzip": DefaultRecordBatch.CODEC_GZIP,
    "snappy": DefaultRecordBatch.CODEC_SNAPPY,
    "lz4": DefaultRecordBatch.CODEC_LZ4,
    "zstd": DefaultRecordBatch.CODEC_ZSTD,
}
OVERHEAD_BYTES = 64
# More than what is tried first.
BOUND_BYTES = 1_048_576
HUGE_BYTES = 300_000_000
# A process of ours with its libraries has 60 MiB.
RSS_MAX_MIB = 200


def a_batch(name: str, size: int) -> bytes:
    builder = DefaultRecordBatchBuilder(
        magic=2, compression_type=CODECS[name], is_transactional=0, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=size + 1024,
    )  # fmt: skip
    builder.append(0, timestamp=0, key=None, value=bytes(size), headers=[])
    return bytes(builder.build())


def unpacked(batch: bytes) -> list[int]:
    return [len(record.value) for record in MemoryRecords(batch).next_batch()]


@pytest.mark.parametrize("name", CODECS)
def test_a_batch_is_unpacked_up_to_the_bound(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack, "UNPACKED_MAX_BYTES", BOUND_BYTES)
    bound_unpacking()
    size = BOUND_BYTES - OVERHEAD_BYTES

    assert unpacked(a_batch(name, size)) == [size]
    with pytest.raises(UnpackError):
        unpacked(a_batch(name, BOUND_BYTES))


def test_a_batch_far_beyond_the_bound_takes_no_memory() -> None:
    """In a process that reads topics."""
    code = (
        "import sys; from bridge.kafka import fetch_buffer; from aiokafka.record.memory_records import MemoryRecords\n"
        "try: list(MemoryRecords(sys.stdin.buffer.read()).next_batch())\n"
        "except Exception: print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    packed = a_batch("zstd", HUGE_BYTES)
    ended = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)  # noqa: S603 - our own

    assert 0 < int(ended.stdout) / 1024 < RSS_MAX_MIB


@pytest.mark.parametrize("blocks", [b"\xff\xff\xff\xfc", b"\x00\x00\x00\x00", b"\x00\x00\x00\x09ab"])
def test_blocks_of_no_length_or_beyond_the_end_are_refused(blocks: bytes) -> None:
    """By a negative one the client's own function never ends."""
    bound_unpacking()
    head = codec.snappy_encode(b"")[:16]
    module = sys.modules[DefaultRecordBatch.__module__]

    with pytest.raises((UnpackError, cramjam.DecompressionError)):
        module.snappy_decode(head + blocks)


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
