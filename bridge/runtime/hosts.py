"""Check whether a host name is valid for a lookup."""

import re
from ipaddress import IPv6Address

# Characters of a URL outside the host; such a name would be looked up repeatedly.
_of_a_url = re.compile(r"[\s/\\@?#\[\]]").search


def is_host(name: str) -> bool:
    """Return whether a name or an address can be looked up.

    For an empty label, or one of more than 63 characters, Python raises a `UnicodeError` at each connection attempt,
    which is not a network failure.
    """
    try:
        if ":" in name:
            return bool(IPv6Address(name))
        return not _of_a_url(name) and bool(name.encode("idna"))
    except ValueError:  # includes `UnicodeError`
        return False
