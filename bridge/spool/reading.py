"""Read entries back from their places; runs on the spool's reading thread."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bridge.spool.book import Place, Segment
from bridge.spool.disk import Disk
from bridge.spool.format import Entry, Key, Lane, read_head, unseal

# What a disk says of a place that it will not give back; anything else may pass.
LOST = frozenset({errno.EIO, errno.ENOENT})

Source = tuple[Segment, Place]


class Outcome(NamedTuple):
    """What was read, in order, and what stands no more where it was."""

    entries: list[Entry]
    damaged: list[Source]


def read_entries(disk: Disk, keys: Mapping[bytes, Key], lane: Lane, sources: Sequence[Source]) -> Outcome:
    """Read places of a lane, up to the first that cannot be read now."""
    entries: list[Entry] = []
    damaged: list[Source] = []
    for source in sources:
        segment, place = source
        try:
            record = disk.read(segment.path, place.offset, place.length)
        except OSError as exc:
            if exc.errno not in LOST:
                break
            damaged.append(source)
            continue
        entry = _open(record, keys, segment=segment.number, number=place.number)
        if entry is None or entry.lane != lane:
            damaged.append(source)
        else:
            entries.append(entry)
    return Outcome(entries, damaged)


def _open(record: bytes, keys: Mapping[bytes, Key], *, segment: int, number: int) -> Entry | None:
    head = read_head(record)
    if head is None or (head.segment, head.number) != (segment, number) or head.key_id not in keys:
        return None
    return unseal(record, keys[head.key_id])
