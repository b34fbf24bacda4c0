"""Choices derived from bytes, so that a target's data is a function of its input, and small changes stay small."""

from collections.abc import Sequence
from typing import TypeVar

Item = TypeVar("Item")

_BYTE = 256


class Choices:
    """Reads from the front of some bytes; when they are used up, every choice is the first."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0

    @property
    def is_used_up(self) -> bool:
        return self._at >= len(self._content)

    def below(self, bound: int) -> int:
        """Choose from `range(bound)`, by as many bytes as the bound needs."""
        return int.from_bytes(self.take(max(1, ((bound - 1).bit_length() + 7) // 8)), "big") % bound

    def one(self, items: Sequence[Item]) -> Item:
        return items[self.below(len(items))]

    def truth(self) -> bool:
        return bool(self.below(2))

    def take(self, length: int) -> bytes:
        start = self._at
        self._at += length
        return self._content[start : self._at]

    def chunk(self, most: int) -> bytes:
        """Take some bytes, their number first."""
        return self.take(self.below(min(most + 1, _BYTE)))

    def text(self, most: int) -> str:
        return self.chunk(most).decode(errors="replace")

    def rest(self) -> bytes:
        return self.take(len(self._content))
