"""Inspect a spool without changing it, also while a process has it open."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from bridge.spool.disk import DAMAGED, Disk, is_locked
from bridge.spool.keys import KeyRing
from bridge.spool.recovery import BATCH, Content, Opened, decrypt_all, examine, segment_numbers
from bridge.spool.segment import SUFFIX, Entry, Key, SpoolPartition, UnreadableEntryError, segment_name


@dataclass(slots=True)
class SegmentState:
    """The content of one segment."""

    name: str
    size: int = 0
    waiting: int = 0  # intact records that are not acknowledged
    locked: int = 0  # waiting records whose key is missing
    unknown: int = 0  # waiting records of another version of the bridge; at least 1 if the file is of that version
    lost: int = 0  # damaged or missing records
    damage: list[tuple[int, int]] = field(default_factory=list)  # byte ranges without an intact record: from, to
    is_torn: bool = False  # the last write is unfinished, by a crash or because it is in progress
    is_read: bool = True  # False if part of the file cannot be read; then only the rest is counted
    # Numbers of waiting records by partition, without locked ones.
    partitions: Counter[SpoolPartition] = field(default_factory=Counter)
    keys: Counter[bytes] = field(default_factory=Counter)  # numbers of intact records by key id; a segment has one key
    accepted_ms: list[int] = field(default_factory=list)  # when its first and last record of this version were accepted
    oldest_ms: int = 0  # when the oldest waiting record was accepted, in Unix milliseconds; 0 if there is none

    @property
    def is_sound(self) -> bool:
        """True if nothing is damaged, locked, unknown or unreadable."""
        return self.is_read and not (self.lost or self.damage or self.locked or self.unknown)


def survey(
    directory: Path, keys: Mapping[bytes, Key], *, read: Callable[[Entry], object], disk: Disk | None = None
) -> Iterator[SegmentState]:
    """Yield the state of each segment, oldest first; segments removed meanwhile are skipped.

    `read` reads a payload, and raises `UnreadableEntryError` if another version wrote it. Raises `OSError` if the
    directory cannot be listed.
    """
    disk = disk or Disk()
    numbers = segment_numbers(disk, directory)
    for number in numbers:
        path = directory / segment_name(number)
        try:
            content = examine(disk, path, number=number, newest=number == numbers[-1], keys=keys)
        except FileNotFoundError:
            continue  # removed, since all of its records were acknowledged
        except OSError:
            yield SegmentState(path.name, is_read=False)
            continue
        yield _state(path.name, content, keys, read)


def gets_first_key(directory: Path, keys: KeyRing, *, spool_is_empty: bool) -> bool:
    """Return whether the next start creates the first key; if a process has the spool open, it has one already."""
    return spool_is_empty and keys.is_empty and not is_locked(directory)


def damaged_count(directory: Path) -> int:
    """Return the number of segments kept in `damaged` after a start has found damage in them."""
    return sum(name.endswith(SUFFIX) for name in Disk().names(directory / DAMAGED))


def _state(name: str, content: Content, keys: Mapping[bytes, Key], read: Callable[[Entry], object]) -> SegmentState:
    found = content.scan
    times = sorted(record.header.at_ms for record in found.records if record.header.is_known)
    state = SegmentState(
        name,
        size=len(content.raw),
        waiting=len(content.waiting),
        lost=found.lost,
        damage=list(found.damage),
        is_torn=found.torn_at is not None,
        is_read=content.is_read,
        keys=Counter(record.header.key_id for record in found.records),
        accepted_ms=[*times[:1], *times[-1:]],
        oldest_ms=min((record.header.at_ms for record in content.waiting), default=0),
    )
    for first in range(0, len(content.waiting), BATCH):
        _count(state, decrypt_all(content.raw, content.waiting[first : first + BATCH], keys), read)
    state.unknown = max(state.unknown, found.is_foreign)
    return state


def _count(state: SegmentState, opened: Iterable[Opened], read: Callable[[Entry], object]) -> None:
    """Add waiting records to the counts; a record that cannot be decrypted although its key is there is damaged."""
    for record, entry, locked_by in opened:
        if entry is not None:
            try:
                read(entry)
                state.partitions[entry.partition] += 1
            except UnreadableEntryError:
                state.unknown += 1
        elif locked_by == "no_key":
            state.locked += 1
        elif locked_by:
            state.unknown += 1
        else:
            state.waiting -= 1
            state.lost += 1
            state.damage.append((record.offset, record.offset + record.header.size))
