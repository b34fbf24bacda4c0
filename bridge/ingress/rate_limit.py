"""Rate limits per source and per address, applied before any other check.

They apply before verification, when a delivery has cost almost nothing, and are off unless configured. Forged
deliveries can use up the limit of a source. So if senders reach the bridge directly, use the limit per address.

The generic cell rate algorithm (ITU-T I.371, Annex A) keeps one number for each key: when the next delivery would be
due if all came evenly. Of the libraries, `limits` wakes a thread every 10 ms, does not bound the number of keys and
costs 3 to 8 µs, and `aiolimiter` queues what should be refused.
"""

from collections import OrderedDict
from collections.abc import Sequence
from ipaddress import IPv6Address

from bridge.proof.schemes.network import Network, client_address

# Some 10 MiB. Beyond it the address that was least recently seen starts anew; no installation has that many senders.
KEYS_MAX = 65_536
# Sums of floats differ in their last bits; a sender that comes back after Retry-After must pass.
ROUNDING_S = 1e-6
# A network that is given to one customer (RFC 6177); in it addresses are free.
V6_PREFIX_BITS = 64


class RateLimit:
    """Lets `burst` deliveries of a key pass at once, and `per_s` a second in the long run."""

    def __init__(self, *, per_s: float, burst: int, keys_max: int = KEYS_MAX) -> None:
        self.per_s = per_s
        self._interval_s = 1 / per_s
        self._ahead_s = (burst - 1) / per_s
        self._keys_max = keys_max
        self._due: OrderedDict[object, float] = OrderedDict()

    def wait_s(self, key: object, now: float) -> float:
        """Count a delivery of `key` and return 0; or count nothing, and return after how many seconds one may come."""
        due = self._due.get(key, now)
        if due - now > self._ahead_s + ROUNDING_S:
            return due - now - self._ahead_s
        self._due[key] = max(due, now) + self._interval_s
        self._due.move_to_end(key)
        if len(self._due) > self._keys_max:
            self._due.popitem(last=False)
        return 0.0


class AddressLimit:
    """A limit for each address that deliveries come from; for a network of 64 bits in version 6."""

    def __init__(self, limit: RateLimit, *, proxies: Sequence[Network] = ()) -> None:
        """Count by the address that `proxies` name, where the connection comes from one of them."""
        self._limit = limit
        self._proxies = proxies

    def wait_s(self, peer: str, forwarded: bytes, now: float) -> float:
        """As `RateLimit.wait_s`, by the peer of the connection and `X-Forwarded-For`."""
        address = client_address(peer, forwarded, self._proxies)
        key: object = address
        if isinstance(address, IPv6Address):
            key = int(address) >> (128 - V6_PREFIX_BITS)
        return self._limit.wait_s(key, now)
