"""File formats of the spool: segments, whose records can be distinguished from damage, and positions files.

A segment `<number as 16 hex digits>.segment` is an append-only series of records. A record is a header of 68 bytes in
clear text and a body encrypted with AES-256-GCM. The header up to its checksums is associated data:

    prefix 7 | version 1 | body length 4 | segment 8 | running number 4 | ordinal 8 | unix ms 8 | key id 8 | nonce 12
    | CRC of the body 4 | CRC of all before 4 | body: partition 4, topic length 2, topic, payload, tag 16

The checksums distinguish damage from a missing key; only the authenticated encryption identifies the writer. The
segment's number in each header identifies stale blocks of other files; gaps in the sequence numbers count missing
records. The end mark, a header without a body, has the number of records, and a keyed BLAKE2b of the header instead of
a nonce. Only the newest segment may lack it, and may end in an unfinished write, which was never confirmed. After
damage the next record is found by its prefix.

The file `<number>.positions` lists the acknowledged records, in frames with a digest each: magic 8, segment 8, count 4,
sequence numbers 4 each, keyed BLAKE2b 16. An invalid frame is skipped. Losing the file only causes duplicates.

All numbers are big-endian. `docs/spool.md` describes the format for authors of readers.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

SpoolPartition = tuple[str, int]
"""Topic and number of the partition."""

SUFFIX, POSITIONS_SUFFIX = ".segment", ".positions"
# Bytes: large enough for few files, small enough that space is freed while a long spool is drained.
SEGMENT_BYTES = 8_388_608
SEGMENTS_MIN = 16
SEGMENT_MIN_BYTES = 65_536
# Begins with a non-ASCII byte and contains a line end, so that text files and text-mode copies do not match.
PREFIX = b"\x8bDRXSP\n"
# Version in the byte after the prefix. Any change of the following layout needs another version. The release after one
# that reads it may write it, so that a rollback by one release can read everything.
VERSION = 1
READABLE = frozenset({VERSION})
# Prefix, version, length of the body, segment, sequence number, ordinal, Unix milliseconds, key id, nonce. The size of
# the header, and the offsets of prefix, version, length, segment, sequence number and checksums are the same in every
# version, to distinguish a record of another version from damage.
_CLEAR = struct.Struct(">7sBIQIQQ8s12s")
_CHECK = struct.Struct(">I")
HEADER_BYTES = _CLEAR.size + 2 * _CHECK.size
# Partition and length of the topic's name, before topic and payload.
_INSIDE = struct.Struct(">IH")
NONCE_BYTES = 12  # 96 bits, the size recommended for GCM: NIST SP 800-38D, 8.2
TAG_BYTES = 16
KEY_BYTES = 32
# The fields of an end mark before the nonce.
_AUTHENTICATED_BYTES = _CLEAR.size - NONCE_BYTES
# A changed number would mark an event as acknowledged that is not, so a checksum of 32 bits is not enough.
_DIGEST_BYTES = 16
# The AES key is used for nothing else, so the BLAKE2b key is derived from it.
_HASH_KEY_PERSON = b"drx-spool-hash"
OVERHEAD_BYTES = HEADER_BYTES + _INSIDE.size + TAG_BYTES


class Entry(NamedTuple):
    """One opaque payload of a partition."""

    ordinal: int  # increases in the order of acceptance
    at_ms: int  # when it was accepted, Unix milliseconds
    partition: SpoolPartition  # topic and partition
    payload: bytes  # opaque to the spool

    def __repr__(self) -> str:
        """Show only the partition: the payload is health information."""
        return f"Entry({self.ordinal}, {self.partition[0]}/{self.partition[1]})"


class UnreadableEntryError(Exception):
    """A payload has a layout that this version does not know; it is kept for one that does."""


class Key(NamedTuple):
    """Encrypts and decrypts records; its id, which does not reveal it, is stored in clear text."""

    id: bytes
    cipher: AESGCM
    hash: hashlib.blake2b  # keyed, without content; copied for each digest

    def digest(self, content: bytes) -> bytes:
        """Return a keyed digest, which authenticates `content` that is stored in clear text."""
        keyed = self.hash.copy()
        keyed.update(content)
        return keyed.digest()


class RecordHeader(NamedTuple):
    """The part of a record in clear text."""

    version: int  # of the format; in other versions most fields may have another meaning
    length: int
    segment: int  # number of its file, to detect stale blocks of other files
    number: int  # sequence number in that file, from 0 without gaps
    ordinal: int
    at_ms: int
    key_id: bytes
    nonce: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole record."""
        return HEADER_BYTES + self.length

    @property
    def is_known(self) -> bool:
        """True if this version can read the record."""
        return self.version in READABLE


class Intact(NamedTuple):
    """A record whose checksums are correct."""

    offset: int
    header: RecordHeader


class Scan(NamedTuple):
    """The content of a segment file."""

    records: list[Intact]  # intact records, by sequence number
    damage: list[tuple[int, int]]  # byte ranges that are not a record, from and to
    total: int  # number of records by its end mark, or else estimated
    torn_at: int | None  # offset of an unfinished last write; None if there is none
    is_ended: bool  # it has an end mark
    # True if another version wrote to it. Then nothing counts as damaged, lost or torn, since it may be data that this
    # version does not know.
    is_foreign: bool = False

    @property
    def lost(self) -> int:
        """Number of damaged or missing records; every damaged range counts, even if no record is missing."""
        return max(self.total - len(self.records), len(self.damage))


def key_of(secret: bytes) -> Key:
    """Return the key derived from 32 random bytes."""
    hash_key = hashlib.blake2b(secret, digest_size=KEY_BYTES, person=_HASH_KEY_PERSON).digest()
    keyed = hashlib.blake2b(key=hash_key, digest_size=_DIGEST_BYTES)
    return Key(hashlib.sha256(secret).digest()[:8], AESGCM(secret), keyed)


def encrypted_size(entry: Entry) -> int:
    """Return the bytes of an entry on disk."""
    return OVERHEAD_BYTES + len(entry.partition[0].encode()) + len(entry.payload)


def encrypt(entry: Entry, *, segment: int, number: int, key: Key, nonce: bytes) -> bytes:
    """Return the record of an entry; `nonce` must never be reused with this key."""
    topic = entry.partition[0].encode()
    inside = _INSIDE.pack(entry.partition[1], len(topic)) + topic + entry.payload
    clear = _CLEAR.pack(
        PREFIX, VERSION, len(inside) + TAG_BYTES, segment, number, entry.ordinal, entry.at_ms, key.id, nonce
    )
    body = key.cipher.encrypt(nonce, inside, clear)
    return _checked(clear, body) + body


def end_mark(segment: int, count: int, key: Key) -> bytes:
    """Return the end mark of a finished segment; without it, truncation between two records would not be detected."""
    clear = _CLEAR.pack(PREFIX, VERSION, 0, segment, count, 0, 0, key.id, bytes(NONCE_BYTES))[:_AUTHENTICATED_BYTES]
    return _checked(clear + key.digest(clear)[:NONCE_BYTES], b"")


def _is_authentic(content: bytes, at: int, header: RecordHeader, keys: Mapping[bytes, Key]) -> bool:
    """Return False for an end mark with a wrong digest; True if the key is missing."""
    key = keys.get(header.key_id)
    if header.length or not header.is_known or key is None:
        return True
    return key.digest(content[at : at + _AUTHENTICATED_BYTES])[:NONCE_BYTES] == header.nonce


def _checked(clear: bytes, body: bytes) -> bytes:
    header = clear + _CHECK.pack(zlib.crc32(body))
    return header + _CHECK.pack(zlib.crc32(header))


def decrypt(record: bytes, key: Key) -> Entry | None:
    """Return the entry of a whole record of a known version, or None if it does not decrypt with this key."""
    header = read_header(record)
    if header is None or not header.is_known or not header.length:
        return None
    if len(record) != header.size or key.id != header.key_id:
        return None
    try:
        inside = key.cipher.decrypt(header.nonce, record[HEADER_BYTES:], record[: _CLEAR.size])
    except InvalidTag:
        return None
    partition, length = _INSIDE.unpack_from(inside)
    topic, payload = inside[_INSIDE.size : _INSIDE.size + length], inside[_INSIDE.size + length :]
    return Entry(header.ordinal, header.at_ms, (topic.decode(), partition), payload)


def read_header(content: bytes, at: int = 0) -> RecordHeader | None:
    """Return the intact header at `at`, of any version, or None."""
    if not content.startswith(PREFIX, at) or len(content) - at < HEADER_BYTES:
        return None
    header = content[at : at + HEADER_BYTES]
    (check,) = _CHECK.unpack_from(header, HEADER_BYTES - _CHECK.size)
    if zlib.crc32(header[: -_CHECK.size]) != check:
        return None
    return RecordHeader._make(_CLEAR.unpack_from(header)[1:])


def scan(content: bytes, *, segment: int, newest: bool, keys: Mapping[bytes, Key]) -> Scan:
    """Find every intact record of a segment, also between damaged ranges.

    Only the `newest` segment may end in an unfinished write. An end mark is valid if its digest is, or if no record can
    be decrypted.
    """
    found: dict[int, Intact] = {}
    damage: list[tuple[int, int]] = []
    at, end = 0, len(content)
    sound_to, mark = 0, None
    while at < end:
        header = read_header(content, at)
        if (
            header is None
            or header.segment != segment
            or header.number in found
            or not _is_whole(content, at, header)
            or not _is_authentic(content, at, header, keys)
        ):
            # Not after the length in the header: the bytes in between may be missing.
            at = content.find(PREFIX, at + 1)
            at = end if at < 0 else at
            continue
        if sound_to < at:
            damage.append((sound_to, at))
        if header.length:
            found[header.number] = Intact(at, header)
        else:
            mark = header
        at = sound_to = at + header.size
    records = [found[number] for number in sorted(found)]
    if _is_foreign(content, [*(record.header for record in records), *([mark] if mark else [])]):
        return Scan(records, [], len(records), None, mark is not None, is_foreign=True)
    torn_at = sound_to if newest and sound_to < end and _is_torn(content, sound_to) else None
    if sound_to < end and torn_at is None:
        damage.append((sound_to, end))
    if mark is not None and mark.key_id not in keys and any(record.header.key_id in keys for record in records):
        mark = None
    count = mark.number if mark else _total(content, found, damage, segment=segment, newest=newest)
    return Scan(records, damage, count, torn_at, is_ended=mark is not None)


def _is_foreign(content: bytes, headers: Iterable[RecordHeader]) -> bool:
    """Return whether another version wrote to a file, by its intact headers or else its first bytes."""
    known = [header.is_known for header in headers]
    if known:
        return not all(known)
    return content.startswith(PREFIX) and len(content) > len(PREFIX) and content[len(PREFIX)] not in READABLE


def _is_whole(content: bytes, at: int, header: RecordHeader) -> bool:
    if len(content) - at < header.size:
        return False
    check = content[at + _CLEAR.size : at + _CLEAR.size + _CHECK.size]
    return _CHECK.pack(zlib.crc32(memoryview(content)[at + HEADER_BYTES : at + header.size])) == check


def _is_torn(content: bytes, at: int) -> bool:
    """Distinguish an unfinished write (part of a record, or a file extended without content) from damage."""
    rest = len(content) - at
    if rest < HEADER_BYTES and content[at : at + len(PREFIX)] == PREFIX[: min(rest, len(PREFIX))]:
        return True
    header = read_header(content, at)
    if header is not None:
        return rest < header.size
    return not any(memoryview(content)[at:])


def _total(content: bytes, found: Iterable[int], damage: list[tuple[int, int]], *, segment: int, newest: bool) -> int:
    """Return the number of records by sequence numbers, intact or damaged; at least one more for a lost end."""
    known = max(found, default=-1)
    last = max(_heads(content, damage, segment=segment), default=-1)
    is_cut = not newest or (bool(damage) and damage[-1][1] == len(content))
    return max(known, last) + 1 + (is_cut and last <= known)


def _heads(content: bytes, damage: list[tuple[int, int]], *, segment: int) -> Iterable[int]:
    for start, end in damage:
        at = content.find(PREFIX, start, end)
        while at >= 0:
            header = read_header(content, at)
            if header is not None and header.segment == segment and header.length:
                yield header.number
            at = content.find(PREFIX, at + 1, end)


# Begins with a non-ASCII byte, as in a segment; followed by a byte for the format's version.
POSITIONS_PREFIX = b"\x8bDRXAK\n"
POSITIONS_VERSION = 1
_MAGIC = POSITIONS_PREFIX + bytes([POSITIONS_VERSION])
# Magic, number of the segment, count of sequence numbers.
_COUNT = struct.Struct(">8sQI")
_NUMBER_BYTES = 4


def positions_frame(segment: int, numbers: Iterable[int], key: Key) -> bytes:
    """Return a frame to append to the positions file of `segment` for acknowledged records."""
    listed = tuple(numbers)
    content = _COUNT.pack(_MAGIC, segment, len(listed)) + struct.pack(f">{len(listed)}I", *listed)
    return content + key.digest(content)


def read_positions(content: bytes, *, segment: int, keys: Iterable[Key]) -> set[int]:
    """Return the numbers of acknowledged records in all frames with a valid digest."""
    keys = list(keys)
    numbers: set[int] = set()
    at = content.find(_MAGIC)
    while 0 <= at <= len(content) - _COUNT.size:
        _, stated, count = _COUNT.unpack_from(content, at)
        end = at + _COUNT.size + count * _NUMBER_BYTES
        digest = content[end : end + _DIGEST_BYTES]
        if stated == segment and digest in [key.digest(content[at:end]) for key in keys]:
            numbers.update(struct.unpack_from(f">{count}I", content, at + _COUNT.size))
            at = content.find(_MAGIC, end + _DIGEST_BYTES)
        else:  # torn: do not rely on its length
            at = content.find(_MAGIC, at + 1)
    return numbers


def segment_name(number: int) -> str:
    """Return the name of a segment's file; sorting by name gives the order of numbers."""
    return f"{number:016x}{SUFFIX}"


def positions_path(segment: Path) -> Path:
    """Return the positions file of a segment."""
    return segment.with_suffix(POSITIONS_SUFFIX)


def segment_bytes(capacity_bytes: int) -> int:
    """Return the size in bytes at which a new segment is begun."""
    return max(SEGMENT_MIN_BYTES, min(SEGMENT_BYTES, capacity_bytes // SEGMENTS_MIN))
