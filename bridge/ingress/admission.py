"""How much may be taken in at one time, by count and by bytes; decided when a body is whole.

A delivery whose body is still coming takes no room here: a client could take all of it by declaring bodies that it
never sends. What has come of such bodies is bounded by the server (`runtime/http.py`).
"""

from __future__ import annotations


class Admission:
    """Counts what is in flight. Not a queue: what does not fit is refused at once, and the sender comes back."""

    __slots__ = ("_bytes_max", "_count_max", "bytes", "count")

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        """Start empty."""
        self._count_max = count_max
        self._bytes_max = bytes_max
        self.count = 0
        self.bytes = 0

    def enter(self, size: int) -> bool:
        """Take one delivery of `size` bytes in, or return False and take nothing.

        A delivery larger than the whole bound still enters when nothing else is in flight, or it never could.
        """
        if self.count >= self._count_max or (self.count and self.bytes + size > self._bytes_max):
            return False
        self.count += 1
        self.bytes += size
        return True

    def leave(self, size: int) -> None:
        """Give back what `enter` took for the same `size`."""
        self.count -= 1
        self.bytes -= size
