"""Limits of the public port: a rate per source and per address, and deliveries in flight.

Rates apply before verification, when a delivery has cost little, and are off by default. Forged deliveries can use up
the limit of a source, so set the limit per address, too, if the bridge or its trusted proxies see senders' addresses.

The generic cell rate algorithm (ITU-T I.371, Annex A) keeps one number for each key: the theoretical arrival time of
the next delivery. Libraries do not fit: `limits` wakes a thread every 10 ms, does not bound the number of keys and
costs 3 to 8 µs; `aiolimiter` queues instead of refusing.
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address

from bridge.proof.schemes.network import Network, client_address

# Keys kept (10 MiB): more than any installation has senders. Beyond this, the least recently admitted is dropped.
KEYS_MAX = 65_536
# Seconds of tolerance for float rounding: a retry exactly after Retry-After must pass.
ROUNDING_S = 1e-6
# Prefix length of the smallest IPv6 network that a customer gets; the customer can use any address in it.
V6_PREFIX_BITS = 64


class RateLimit:
    """Admits bursts of `burst` deliveries of a key, and `per_s` a second in the long run."""

    def __init__(self, *, per_s: float, burst: int, keys_max: int = KEYS_MAX) -> None:
        self.per_s = per_s
        self._interval_s = 1 / per_s
        self._ahead_s = (burst - 1) / per_s
        self._keys_max = keys_max
        self._due: OrderedDict[object, float] = OrderedDict()

    def wait_s(self, key: object, now: float) -> float:
        """Count a delivery of `key` and return 0, or do not count it and return the seconds until one is admitted."""
        due = self._due.get(key, now)
        if due - now > self._ahead_s + ROUNDING_S:
            return due - now - self._ahead_s
        self._due[key] = max(due, now) + self._interval_s
        self._due.move_to_end(key)
        if len(self._due) > self._keys_max:
            self._due.popitem(last=False)
        return 0.0


class AddressLimit:
    """A limit per client address; per /64 network for IPv6."""

    def __init__(self, limit: RateLimit, *, proxies: Sequence[Network] = ()) -> None:
        """`proxies` are trusted networks whose `X-Forwarded-For` gives the client address."""
        self._limit = limit
        self._proxies = proxies

    def wait_s(self, peer: str, forwarded: bytes, now: float) -> float:
        """As `RateLimit.wait_s`, by the peer of the connection and `X-Forwarded-For`."""
        address = client_address(peer, forwarded, self._proxies)
        key: object = address
        if isinstance(address, IPv6Address):
            key = int(address) >> (128 - V6_PREFIX_BITS)
        return self._limit.wait_s(key, now)


class Admission:
    """Bounds verified deliveries in flight, by count and by bytes.

    Excess deliveries are refused at once instead of queued, and senders retry. Only verified deliveries count, so that
    clients without a secret cannot use up the limit. `runtime/http_server.py` bounds what such clients send.
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
