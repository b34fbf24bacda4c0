"""The networks that a source sends from; an address alone is weak evidence, so combine it with another scheme."""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses, ip_address, ip_network

from bridge.proof.scheme import KeySlot, Proof, Raw, Scheme, refuse
from bridge.proof.schemes.parameters import Parameters

NAME = "cidr"
FORWARDED = b"x-forwarded-for"
# Entries of X-Forwarded-For that are read, from the right.
HOPS_MAX = 32

# Prefix lengths of the largest private networks: 10.0.0.0/8 (RFC 1918) and fc00::/7 (RFC 4193).
OWN_V4_PREFIX, OWN_V6_PREFIX = 8, 7

# IPv4-mapped addresses are converted to IPv4, so this network never matches.
_MAPPED = IPv6Network("::ffff:0:0/96")

IPAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Cidr(Scheme):
    """Verifies that a delivery comes from one of the configured networks."""

    name = NAME
    keyed = False
    reads_peer = True

    def __init__(self, parameters: Parameters) -> None:
        self._networks = _read(parameters, "networks")
        self.allows_everyone = are_too_wide(self._networks)
        if not self._networks:
            raise parameters.error("networks", "must name a network")
        self.proxies = _read(parameters, "trusted_proxies", "")
        self.joined = frozenset({FORWARDED}) if self.proxies else frozenset()

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Check that the sender's address is in one of the networks."""
        del keys, now
        address = client_address(raw.peer, raw.headers.get(FORWARDED, b""), self.proxies)
        if address is None or not any(address in network for network in self._networks):
            refuse("signature_mismatch")
        return Proof(None, None, NAME)

    def describe(self) -> str:
        """Return the name and the number of networks."""
        return f"{NAME} of {len(self._networks)}"


def client_address(peer: str, forwarded: bytes, proxies: Sequence[Network]) -> IPAddress | None:
    """Return the peer or, behind trusted proxies, the client: each proxy appends its caller to `forwarded`."""
    address = _address(peer)
    if not proxies or address is None or not _in_any(address, proxies):
        return address
    for hop in reversed(forwarded.split(b",")[-HOPS_MAX:]):
        text = hop.strip().decode("latin-1")
        if not text:
            break
        address = _address(_without_port(text))
        if address is None or not _in_any(address, proxies):
            return address
    return address


def networks(text: str) -> tuple[Network, ...]:
    """Parse networks separated by commas; `ValueError` if one is invalid or can never match."""
    found = tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    for each in found:
        if each.is_multicast or (isinstance(each, IPv6Network) and each.subnet_of(_MAPPED)):
            raise ValueError
    return found


def are_too_wide(given: Sequence[Network]) -> bool:
    """Return whether networks, merged, are too large for one owner; 0.0.0.0/1,128.0.0.0/1 is every address."""
    v4 = collapse_addresses(each for each in given if isinstance(each, IPv4Network))
    v6 = collapse_addresses(each for each in given if isinstance(each, IPv6Network))
    return any(each.prefixlen < OWN_V4_PREFIX for each in v4) or any(each.prefixlen < OWN_V6_PREFIX for each in v6)


def _read(parameters: Parameters, name: str, default: str | None = None) -> tuple[Network, ...]:
    try:
        return networks(parameters.text(name, default))
    except ValueError:
        problem = (
            "must be a list of networks such as 192.0.2.0/24, separated by commas, without host bits; "
            "no delivery comes from multicast or ::ffff:0:0/96"
        )
        raise parameters.error(name, problem) from None


def _in_any(address: IPAddress, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _address(text: str) -> IPAddress | None:
    try:
        address = ip_address(text.partition("%")[0])  # drop the zone (`%eth0`)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _without_port(text: str) -> str:
    """Remove the port that some proxies append: `192.0.2.1:4711`, `[2001:db8::1]:4711`."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    host, colon, port = text.partition(":")
    return host if colon and ":" not in port else text
