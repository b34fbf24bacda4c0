"""Check whether a host name can be looked up at all."""

import re
from ipaddress import IPv6Address

# What stands around the host in a URL; a resolver is asked for such a name again and again.
_of_a_url = re.compile(r"[\s/\\@?#\[\]]").search


def is_host(name: str) -> bool:
    """Return whether a name or an address can be looked up.

    For one with an empty label, or one of more than 63 characters, Python raises a `UnicodeError` at each attempt to
    connect, which is no failure of the network.
    """
    try:
        if ":" in name:
            return bool(IPv6Address(name))
        return not _of_a_url(name) and bool(name.encode("idna"))
    except ValueError:  # which a `UnicodeError` is, too
        return False
