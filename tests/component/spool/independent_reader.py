"""A reader written only from `docs/spool.md`: it shares no code with the spool, so the page must be complete."""

import base64
import hashlib
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

PREFIX = bytes.fromhex("8b445258 53500a")
VERSION = 1
POSITIONS = bytes.fromhex("8b445258 414b0a01")


def keys_in(directory: Path) -> dict[bytes, bytes]:
    """Section Keys."""
    found = {}
    for file in directory.iterdir():
        if file.is_file() and not file.name.startswith("."):
            secret = base64.b64decode(file.read_text().splitlines()[0].removeprefix("spk_"))
            found[hashlib.sha256(secret).digest()[:8]] = secret
    return found


def intact(raw: bytes, at: int, segment: int, seen: set[int]) -> dict[str, Any] | None:
    head = raw[at : at + 68]
    if len(head) < 68 or head[:7] != PREFIX or struct.unpack(">I", head[64:])[0] != zlib.crc32(head[:64]):
        return None
    assert head[7] == VERSION, "another version: leave the file alone"
    length, of, number, ordinal, at_ms, key, nonce, check = struct.unpack(">IQIQQ8s12sI", head[8:64])
    body = raw[at + 68 : at + 68 + length]
    if len(body) < length or zlib.crc32(body) != check or of != segment or number in seen:
        return None
    return {
        "number": number, "ordinal": ordinal, "at_ms": at_ms, "key": key,
        "nonce": nonce, "clear": head[:60], "body": body, "size": 68 + length,
    }  # fmt: skip


def proof(secret: bytes, clear: bytes) -> bytes:
    """Section Reading the files: the MAC of the plaintext bytes."""
    key = hashlib.blake2b(secret, digest_size=32, person=b"drx-spool-hash").digest()
    return hashlib.blake2b(clear, key=key, digest_size=16).digest()


def records_in(raw: bytes, segment: int, keys: dict[bytes, bytes]) -> tuple[list[dict[str, Any]], int | None, int]:
    """Return the intact records, the count of the end mark, and the number of other bytes."""
    records: dict[int, dict[str, Any]] = {}
    count, at, damage = None, 0, 0
    while at < len(raw):
        record = intact(raw, at, segment, set(records))
        is_mark = record is not None and not record["body"]
        if record is None or (is_mark and not is_proved(record, keys)):
            following = raw.find(PREFIX, at + 1)
            following = len(raw) if following < 0 else following
            damage += following - at
            at = following
        else:
            if record["body"]:
                records[record["number"]] = record
            else:
                count = record["number"]
            at += record["size"]
    return [records[number] for number in sorted(records)], count, damage


def is_proved(mark: dict[str, Any], keys: dict[bytes, bytes]) -> bool:
    """Return whether the MAC of an end mark is valid; True if its key is missing."""
    secret = keys.get(mark["key"])
    return secret is None or proof(secret, mark["clear"][:48])[:12] == mark["nonce"]


def positions_in(path: Path, segment: int, keys: dict[bytes, bytes]) -> set[int]:
    raw = path.read_bytes() if path.exists() else b""
    numbers: set[int] = set()
    at = raw.find(POSITIONS)
    while 0 <= at <= len(raw) - 20:
        of, count = struct.unpack_from(">QI", raw, at + 8)
        end = at + 20 + 4 * count
        if of == segment and raw[end : end + 16] in [proof(secret, raw[at:end]) for secret in keys.values()]:
            numbers.update(struct.unpack_from(f">{count}I", raw, at + 20))
        at = raw.find(POSITIONS, at + 1)
    return numbers


def record_in(payload: bytes) -> dict[str, Any]:
    version, at_ms, length, headers = struct.unpack_from(">BqiH", payload)
    assert version == 1
    at = 15 + max(length, 0)
    parts = []
    for _ in range(1 + 2 * headers):
        (size,) = struct.unpack_from(">I", payload, at)
        parts.append(payload[at + 4 : at + 4 + size])
        at += 4 + size
    return {
        "timestamp": at_ms,
        "value": None if length < 0 else payload[15 : 15 + length],
        "key": parts[0],
        "headers": dict(zip((name.decode() for name in parts[1::2]), parts[2::2], strict=True)),
    }


def read(directory: Path, key_dir: Path) -> Iterator[dict[str, Any]]:
    """Yield the waiting records in order, then a summary."""
    keys = keys_in(key_dir)
    missing = damage = 0
    paths = sorted(directory.glob("*.segment"))
    for path in paths:
        segment = int(path.stem, 16)
        records, count, bad = records_in(path.read_bytes(), segment, keys)
        damage += bad
        last = records[-1]["number"] + 1 if records else 0
        missing += (last + (path != paths[-1]) if count is None else count) - len(records)
        acknowledged = positions_in(path.with_suffix(".positions"), segment, keys)
        for record in records:
            if record["number"] in acknowledged:
                continue
            if record["key"] not in keys:
                yield {"ordinal": record["ordinal"], "locked": record["key"].hex()}
                continue
            inside = AESGCM(keys[record["key"]]).decrypt(record["nonce"], record["body"], record["clear"])
            partition, length = struct.unpack_from(">IH", inside)
            yield {
                "ordinal": record["ordinal"], "at_ms": record["at_ms"],
                "topic": inside[6 : 6 + length].decode(), "partition": partition,
                "payload": inside[6 + length :].hex(),
            }  # fmt: skip
    yield {"missing": missing, "damaged_bytes": damage}
