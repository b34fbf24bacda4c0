"""Read what a directory holds: every intact record, whatever became of the rest; runs on the spool's thread."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from bridge.spool.disk import Disk, read_what_can_be
from bridge.spool.format import Entry, Intact, Key, Scan, scan, unseal
from bridge.spool.positions import read_positions
from bridge.spool.writer import SUFFIX

POSITIONS_SUFFIX = ".positions"
DAMAGED = "damaged"
# What `damaged` may take, beside the capacity: eight whole segments (`writer.SEGMENT_BYTES`), in as many files as are
# listed in some milliseconds. Beyond that a damaged range stays where it is, and so does its segment.
DAMAGED_MAX = 1000
DAMAGED_MAX_BYTES = 67_108_864

# Why a record cannot be opened; empty when it can.
Lock = Literal["", "no_key", "unknown_version"]

_is_segment = re.compile(rf"([0-9a-f]{{16}}){re.escape(SUFFIX)}").fullmatch


class Content(NamedTuple):
    """A segment file as it was read.

    Attributes:
        waiting: Intact records that are not acknowledged, by running number.
        whole: Bytes of the file that count; what is behind them is cut off.
        is_read: False while the disk does not give all of it back: then only the records that were found are known.
    """

    number: int
    content: bytes
    scan: Scan
    waiting: list[Intact]
    whole: int
    is_read: bool


class Opened(NamedTuple):
    """Some records and what they hold: an entry, why it is locked, or neither where the seal does not hold."""

    records: Sequence[Intact]
    entries: list[Entry | None]
    locks: list[Lock]


def segment_numbers(disk: Disk, directory: Path) -> list[int]:
    """Return the numbers of all segments, oldest first."""
    return sorted(int(match[1], 16) for match in map(_is_segment, disk.names(directory)) if match)


def positions_path(segment: Path) -> Path:
    """Return the side file of a segment."""
    return segment.with_suffix(POSITIONS_SUFFIX)


def examine(disk: Disk, path: Path, *, number: int, newest: bool) -> Content:
    """Read one segment and tell what is in it; changes nothing.

    Raises:
        OSError: It cannot be read at all.
    """
    content, is_read = read_what_can_be(disk, path)
    result = scan(content, segment=number, newest=newest)
    if not is_read:
        # What was not read may be all that is missing: nothing is torn, damaged or lost as far as anybody knows.
        result = result._replace(damage=[], total=len(result.records), torn_at=None)
    acknowledged = _acknowledged(disk, path, number)
    waiting = [record for record in result.records if record.head.number not in acknowledged]
    whole = len(content) if result.torn_at is None else result.torn_at
    return Content(number, content, result, waiting, whole, is_read)


def unseal_all(content: bytes, records: Sequence[Intact], keys: Mapping[bytes, Key]) -> Opened:
    """Open some records of a segment's content."""
    entries: list[Entry | None] = []
    locks: list[Lock] = []
    for record in records:
        key = keys.get(record.head.key_id)
        lock: Lock = "" if record.head.is_known and key else "no_key" if record.head.is_known else "unknown_version"
        end = record.offset + record.head.size
        entries.append(unseal(content[record.offset : end], key) if key and not lock else None)
        locks.append(lock)
    return Opened(records, entries, locks)


def copy_damage(disk: Disk, segment: Path, damage: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Copy damaged ranges, still sealed, to where they stay; return those that could not be."""
    if not damage:
        return []
    directory = segment.parent / DAMAGED
    try:
        names = disk.names(directory)
        size = sum(disk.size(directory / name) for name in names)
    except OSError:
        return list(damage)
    failed = []
    for start, end in damage:
        name = f"{segment.stem}-{start}-{end}"
        if name in names:
            continue  # it was copied at an earlier start
        if len(names) >= DAMAGED_MAX or size + end - start > DAMAGED_MAX_BYTES:
            failed.append((start, end))
            continue
        try:
            _copy(disk, segment, start, end, path=directory / name)
        except FileNotFoundError:
            continue  # somebody removed the file: there is nothing left to copy
        except OSError:
            failed.append((start, end))
            continue
        names.append(name)
        size += end - start
    return failed


def remove_orphans(disk: Disk, directory: Path) -> None:
    """Remove side files whose segment is gone."""
    with contextlib.suppress(OSError):
        names = set(disk.names(directory))
        for name in names:
            if name.endswith(POSITIONS_SUFFIX) and name.removesuffix(POSITIONS_SUFFIX) + SUFFIX not in names:
                disk.unlink(directory / name)


def _acknowledged(disk: Disk, path: Path, number: int) -> set[int]:
    side = positions_path(path)
    try:
        return read_positions(disk.read(side, 0, disk.size(side)), segment=number)
    except OSError:
        return set()


def _copy(disk: Disk, segment: Path, start: int, end: int, *, path: Path) -> None:
    disk.make_directory(path.parent)
    write_whole(disk, path, disk.read(segment, start, end - start))


def write_whole(disk: Disk, path: Path, content: bytes) -> None:
    """Make a file durable, of which nobody ever sees a part under its name."""
    part = path.with_name(f"{path.name}.part")
    disk.unlink(part)
    handle = disk.create(part)
    try:
        disk.write(handle, content)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(part, path)
    disk.sync_directory(path.parent)
