"""A record's place and a segment's state, as the book keeps them."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from bridge.spool.format import Lane


class Place(NamedTuple):
    """One record: which file, where in it, how long, which number, and when its entry was accepted."""

    segment: int
    offset: int
    length: int
    number: int
    at_ms: int


@dataclass(slots=True)
class Segment:
    """One file and what keeps it there.

    Attributes:
        index: Short name in the places of the book; rises with the number.
        live: Records that are durable and not acknowledged.
        keys: Ids of those that sealed the live ones.
        locked: Running numbers of the records that cannot be opened: the key is not there, or another version of the
            bridge wrote them.
        missing: Ids of those keys.
        foreign: True when another version of the bridge wrote to it: nothing in the file is changed, and it stays.
        aside: Damaged ranges that could not be copied yet.
        newest: True for the one that an earlier process wrote to last.
        unread: True while it is not known what all of it is, since the disk does not give it back.
        seen: Running numbers that were found in it meanwhile.
        skipped: Records, and their lanes, that the disk stopped giving back.
        entering: True while what it holds is being entered, and for good when that was cut off.
        acknowledged: Running numbers that the side file does not have yet.
    """

    index: int
    number: int
    path: Path
    size: int = 0
    live: int = 0
    keys: set[bytes] = field(default_factory=set)
    locked: set[int] = field(default_factory=set)
    missing: set[bytes] = field(default_factory=set)
    foreign: bool = False
    aside: list[tuple[int, int]] = field(default_factory=list)
    newest: bool = False
    unread: bool = False
    seen: set[int] = field(default_factory=set)
    skipped: dict[Place, Lane] = field(default_factory=dict)
    entering: bool = False
    acknowledged: array[int] = field(default_factory=lambda: array("I"))

    @property
    def is_unread(self) -> bool:
        """True while the disk does not give back something of it."""
        return bool(self.unread or self.skipped)

    @property
    def is_known(self) -> bool:
        """True when all that can be told of it is in the book."""
        return not (self.unread or self.entering)

    @property
    def is_needed(self) -> bool:
        """True while removing the file would lose something."""
        return bool(self.live or self.locked or self.foreign or self.aside or self.is_unread or self.entering)
