"""Any damage to the files of a spool: exactly the intact records are recovered, in order, and it remains usable."""

import asyncio
import struct
import tempfile
import zlib
from pathlib import Path

from prometheus_client import CollectorRegistry

from bridge.runtime.metrics import IngressMetrics
from bridge.spool.segment import (
    HEADER_BYTES,
    NONCE_BYTES,
    PREFIX,
    VERSION,
    Entry,
    decrypt,
    encrypt,
    end_mark,
    key_of,
    positions_frame,
    read_header,
    read_positions,
    scan,
)
from bridge.spool.store import Spool
from tests.fuzz.choices import Choices
from tests.fuzz.memory_disk import MemoryDisk
from tests.spooling import OTHER, PARTITION, Found, ordinals, write_key

WORDS = (PREFIX + bytes([VERSION]), b"\xff\xff\xff\xff", b"\0\0\0\0\0\0\0\0")

SECRET = b"k" * 32
KEY = key_of(SECRET)
DIRECTORY = Path("spool")
SEGMENTS, PER_SEGMENT = 3, 5
ACKNOWLEDGED = (0, 2)  # of each segment but the last, in a frame each
APPENDED = 1000
CAPACITY_BYTES = 1 << 24
# Made once: all that the process reports takes longer to set up than a spool to open.
METRICS = IngressMetrics(CollectorRegistry())


def an_entry(segment: int, number: int) -> Entry:
    ordinal = segment * PER_SEGMENT + number
    return Entry(
        ordinal, 1_700_000_000_000 + ordinal, OTHER if ordinal % 3 == 0 else PARTITION, b"%d" % ordinal * ordinal
    )


def sealed(segment: int, number: int) -> bytes:
    nonce = bytes((segment, number)).ljust(NONCE_BYTES, b"\0")
    return encrypt(an_entry(segment, number), segment=segment, number=number, key=KEY, nonce=nonce)


RECORDS = {(s, n): sealed(s, n) for s in range(1, SEGMENTS + 1) for n in range(PER_SEGMENT)}
WHOLE = {
    **{f"{s:016x}.segment": b"".join(RECORDS[s, n] for n in range(PER_SEGMENT)) for s in range(1, SEGMENTS + 1)},
    **{f"{s:016x}.positions": b"".join(positions_frame(s, [n], KEY) for n in ACKNOWLEDGED) for s in range(1, SEGMENTS)},
}
for _segment in range(1, SEGMENTS):
    WHOLE[f"{_segment:016x}.segment"] += end_mark(_segment, PER_SEGMENT, KEY)
NAMES = sorted(WHOLE)
CLEAR = struct.Struct(">7sBIQIQQ8s12s")
VERSIONS = (VERSION, VERSION, VERSION, VERSION + 1)
LENGTHS = (0, 1, 16, 17, 60, 68, 2**31, 2**32 - 1)
KEYS_HOLDER = tempfile.TemporaryDirectory(prefix="drx-fuzz-")
KEYS = Path(KEYS_HOLDER.name) / "keys"
write_key(KEYS, secret=SECRET)


def check_recovery(content: bytes) -> None:
    """Damage files like a disk, and open the spool twice, with one more record in between."""
    choices = Choices(content)
    files = dict(WHOLE)
    while not choices.is_used_up:
        name = choices.one(NAMES)
        files[name] = damaged(choices, files[name], files[choices.one(NAMES)])
    disk = MemoryDisk({DIRECTORY / name: content for name, content in files.items()})
    found = asyncio.run(opened(disk, Entry(APPENDED, 0, PARTITION, b"new")))
    owed, spared = expected(files)
    assert ordinals(found) == sorted(ordinals(found))
    assert owed <= set(ordinals(found)) <= owed | spared
    assert all(entry == an_entry(*divmod(entry.ordinal, PER_SEGMENT)) for entry in found)
    again = asyncio.run(opened(disk))
    assert again == [*found, Entry(APPENDED, 0, PARTITION, b"new")]


def expected(files: dict[str, bytes]) -> tuple[set[int], set[int]]:
    """Return the records that must be recovered, and acknowledged ones that may be: their position is damaged."""
    owed, spared = set(), set()
    for (segment, number), record in RECORDS.items():
        if record not in files[f"{segment:016x}.segment"]:
            continue
        side = f"{segment:016x}.positions"
        if number not in ACKNOWLEDGED or side not in files:
            owed.add(an_entry(segment, number).ordinal)
        elif files[side] != WHOLE[side]:
            spared.add(an_entry(segment, number).ordinal)
    return owed, spared


async def opened(disk: MemoryDisk, *more: Entry) -> list[Entry]:
    found = Found()
    spool = Spool(directory=DIRECTORY, key_dir=KEYS, capacity_bytes=CAPACITY_BYTES, metrics=METRICS, disk=disk)
    await spool.open(found)
    try:
        assert spool.code == ""
        if more:
            await spool.append(more)
    finally:
        await spool.close()
    return found


def damaged(choices: Choices, content: bytes, other: bytes) -> bytes:
    """Flip, cut, zero, remove or insert something, or write a block where it does not belong."""
    start = choices.below(len(content) + 1)
    end = start + choices.one((1, 4, 16, 68, 100, 512, 4096))
    first = choices.below(len(other) + 1)
    block = other[first : first + end - start]
    replaced, by = [
        (1, bytes(byte ^ (1 << first % 8) for byte in content[start : start + 1])),
        (len(content), b""),
        (end - start, bytes(len(content[start:end]))),
        (end - start, b""),
        (0, block),
        (len(block), block),
    ][choices.below(6)]
    return content[:start] + by + content[start + replaced :]


def check_scan(content: bytes) -> None:
    """Insert forged headers with valid checksums between the records of a segment."""
    choices = Choices(content)
    pieces = []
    while not choices.is_used_up:
        match choices.below(4):
            case 0:
                pieces.append(RECORDS[1 + choices.below(2), choices.below(PER_SEGMENT)])
            case 1:
                pieces.append(end_mark(1, choices.below(PER_SEGMENT + 1), KEY))
            case 2:
                pieces.append(forged(choices))
            case _:
                pieces.append(choices.chunk(40))
    content = b"".join(pieces)
    newest = len(pieces) % 2 == 0
    found = scan(content, segment=1, newest=newest, keys={KEY.id: KEY})
    for record in found.records:
        entry = decrypt(content[record.offset : record.offset + record.header.size], KEY)
        assert entry is None or entry == an_entry(1, record.header.number)
    if found.is_foreign:  # nothing in it is judged
        assert (found.damage, found.torn_at, found.lost) == ([], None, 0)
        return
    covered = [(record.offset, record.offset + record.header.size) for record in found.records]
    covered += found.damage
    if found.torn_at is not None:
        assert newest
        covered.append((found.torn_at, len(content)))
    assert_apart(content, sorted(covered))
    assert found.lost >= 0
    # The side file of the same bytes: what no frame of ours says is not believed.
    assert read_positions(content, segment=1, keys=[KEY]) == set()


def assert_apart(content: bytes, ranges: list[tuple[int, int]]) -> None:
    """Check that ranges do not overlap and leave nothing out but end marks."""
    at = 0
    for start, end in [*ranges, (len(content), len(content))]:
        assert at <= start <= end <= len(content)
        while at < start:
            head = read_header(content, at)
            assert head is not None
            assert not head.length
            at += HEADER_BYTES
        assert at == start
        at = end


def forged(choices: Choices) -> bytes:
    """Return any header and a body that may be shorter than declared, with valid checksums."""
    body = choices.chunk(80)
    length = choices.one(LENGTHS) if choices.truth() else len(body)
    segment = 1 + choices.below(2)
    number = choices.one((*range(PER_SEGMENT), 2**32 - 1))
    version = choices.one(VERSIONS)
    clear = CLEAR.pack(PREFIX, version, length, segment, number, choices.below(2**16), 0, KEY.id, bytes(NONCE_BYTES))
    head = clear + zlib.crc32(body).to_bytes(4, "big")
    return head + zlib.crc32(head).to_bytes(4, "big") + body
