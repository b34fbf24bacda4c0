"""Limit the deliveries in progress at the public port."""


class Admission:
    """Bounds verified deliveries in flight, by count and by bytes.

    Excess deliveries are refused at once instead of queued, and senders retry. Only verified deliveries count, so that
    clients without a secret cannot use up the limit. The server bounds what those send (`runtime/http.py`).
    """

    def __init__(self, *, count_max: int, bytes_max: int) -> None:
        self._count_max = count_max
        self._bytes_max = bytes_max
        self.count = 0
        self.bytes = 0

    def enter(self, size: int) -> bool:
        """Count a delivery of `size` bytes and return True, or return False if there is no room."""
        if self.count >= self._count_max or self.bytes + size > self._bytes_max:
            return False
        self.count += 1
        self.bytes += size
        return True

    def leave(self, size: int) -> None:
        """Free the room that `enter` took for the same `size`."""
        self.count -= 1
        self.bytes -= size
