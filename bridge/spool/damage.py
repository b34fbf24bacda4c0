"""What was read and does not hold: counted, and copied, still sealed, to where it stays."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from bridge.runtime.io_thread import IOThread
from bridge.runtime.logging import log
from bridge.spool.availability import SpoolMetrics
from bridge.spool.disk import Disk, write_whole
from bridge.spool.index import Index, Segment

DIRECTORY = "damaged"
# What `damaged` may take, beside the capacity: eight whole segments (`segment.SEGMENT_BYTES`), in as many files as are
# listed in some milliseconds. Beyond that a damaged range stays where it is, and so does its segment.
FILES_MAX = 1000
BYTES_MAX = 67_108_864

Range = tuple[int, int]


class Damage:
    """Copies damaged ranges.

    Attributes:
        records: How many records were found damaged.
    """

    def __init__(self, *, disk: Disk, thread: IOThread, metrics: SpoolMetrics) -> None:
        self._disk = disk
        self._thread = thread
        self._metrics = metrics
        self.records = 0

    async def keep(self, segment: Segment, ranges: Sequence[Range], *, records: int) -> None:
        """Count `records` as damaged and copy `ranges`; the segment stays until that has worked."""
        self.records += records
        self._metrics.spool_corrupt_records.inc(records)
        log.error("worker.spool_damaged", segment=segment.path.stem, records=records)
        segment.uncopied += ranges
        await self._copy(segment)

    async def copy_again(self, index: Index) -> None:
        """Copy what could not be copied before."""
        for segment in list(index.segments.values()):
            if segment.uncopied:
                await self._copy(segment)

    async def _copy(self, segment: Segment) -> None:
        ranges = tuple(segment.uncopied)
        failed = await self._thread.run(partial(copy_ranges, self._disk, segment.path, ranges))
        copied = set(ranges).difference(failed)
        segment.uncopied = [each for each in segment.uncopied if each not in copied]


def copy_ranges(disk: Disk, segment: Path, ranges: Sequence[Range]) -> list[Range]:
    """Copy ranges of a segment, each to a file of its own; return those that could not be copied."""
    directory = segment.parent / DIRECTORY
    try:
        names = disk.names(directory)
        size = sum(disk.size(directory / name) for name in names)
    except OSError:
        return list(ranges)
    failed = []
    for start, end in ranges:
        name = f"{segment.stem}-{start}-{end}"
        if name in names:
            continue  # it was copied at an earlier start
        if len(names) >= FILES_MAX or size + end - start > BYTES_MAX:
            failed.append((start, end))
            continue
        try:
            disk.make_directory(directory)
            write_whole(disk, directory / name, disk.read(segment, start, end - start))
        except FileNotFoundError:
            continue  # the file was removed: nothing is left to copy
        except OSError:
            failed.append((start, end))
            continue
        names.append(name)
        size += end - start
    return failed
