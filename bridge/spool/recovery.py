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


def set_aside(disk: Disk, segment: Path, damage: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Copy damaged ranges, still sealed, to where they stay; return those that could not be."""
    failed = []
    for start, end in damage:
        try:
            _copy(disk, segment, start, end)
        except FileNotFoundError:
            continue  # somebody removed the file: there is nothing left to copy
        except OSError:
            failed.append((start, end))
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


def _copy(disk: Disk, segment: Path, start: int, end: int) -> None:
    directory = segment.parent / DAMAGED
    disk.make_directory(directory)
    name = f"{segment.stem}-{start}-{end}"
    if name in disk.names(directory):
        return  # it was set aside at an earlier start
    content = disk.read(segment, start, end - start)
    path = directory / f"{name}.part"
    disk.unlink(path)
    handle = disk.create(path)
    try:
        disk.write(handle, content)
        disk.sync(handle)
    finally:
        disk.close(handle)
    disk.rename(path, directory / name)
    disk.sync_directory(directory)
