"""Decompress batches of records up to a size limit.

aiokafka 0.14 decompresses a whole batch without a limit, and 9 KB of zstd may become 300 MB. The functions below
replace its own in the modules of its batches. A batch above the limit is treated as unreadable.
"""

import gzip
import io
import struct
import sys
from collections.abc import Callable
from contextlib import suppress

import cramjam
from aiokafka import codec  # noqa: TID251 - this module wraps it
from aiokafka.record.default_records import DefaultRecordBatch  # noqa: TID251 - as above
from aiokafka.record.legacy_records import LegacyRecordBatch  # noqa: TID251 - as above

# The bridge writes uncompressed batches. A topic accepts 2 MiB (`record.MESSAGE_MAX_BYTES`) from other producers, and
# JSON and Avro compress 3 to 10 times.
UNPACKED_MAX_BYTES = 32 * 1024 * 1024
# Buffer size tried before the maximum, as zeroing that takes a millisecond per batch.
_FIRST_FACTOR, _FIRST_BYTES = 32, 65_536
# Format of the xerial library, see `aiokafka.codec.snappy_encode`: a header, then blocks preceded by their length.
_XERIAL_HEAD_BYTES = 16
_BLOCK = struct.Struct(">i")


class UnpackError(Exception):
    """A batch decompresses to more than the limit, or is corrupt."""


def bound_unpacking() -> None:
    """Make aiokafka decompress by these functions from now on, in the whole process."""
    for name, function in (
        ("gzip_decode", _gzip),
        ("snappy_decode", _snappy),
        ("lz4_decode", _within(cramjam.lz4.decompress_into)),
        ("zstd_decode", _within(cramjam.zstd.decompress_into)),
    ):
        for batch in (DefaultRecordBatch, LegacyRecordBatch):  # the C extension, if there is one
            module = sys.modules[batch.__module__]
            if hasattr(module, name):
                setattr(module, name, function)


def _gzip(packed: bytes) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(packed)) as file:
        content = file.read(UNPACKED_MAX_BYTES + 1)
    if len(content) > UNPACKED_MAX_BYTES:
        raise UnpackError
    return content


def _snappy(packed: bytes) -> bytes:
    """Decompress blocks, each preceded by its uncompressed size."""
    blocks = _xerial_blocks(packed) if codec._detect_xerial_stream(packed) else [packed]  # noqa: SLF001 - as it does
    if sum(map(cramjam.snappy.decompress_raw_len, blocks)) > UNPACKED_MAX_BYTES:
        raise UnpackError
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _xerial_blocks(packed: bytes) -> list[bytes]:
    blocks, at = [], _XERIAL_HEAD_BYTES
    while at < len(packed):
        (size,) = _BLOCK.unpack_from(packed, at)
        at += _BLOCK.size
        if size <= 0:  # aiokafka would loop endlessly
            raise UnpackError
        blocks.append(packed[at : at + size])
        at += size
    return blocks


def _within(unpack_into: Callable[[bytes, bytearray], int]) -> Callable[[bytes], bytes]:
    def unpack(packed: bytes) -> bytes:
        first = min(_FIRST_FACTOR * len(packed) + _FIRST_BYTES, UNPACKED_MAX_BYTES)
        for size in (first, UNPACKED_MAX_BYTES):
            room = bytearray(size)
            with suppress(cramjam.DecompressionError):
                return bytes(memoryview(room)[: unpack_into(packed, room)])
        raise UnpackError

    return unpack
