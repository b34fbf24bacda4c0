"""Tell the name of a host that can be looked up from one that no resolver takes."""

from __future__ import annotations


def is_host(name: str) -> bool:
    """Say whether a name or an address can be looked up.

    For one with an empty label, or one of more than 63 characters, Python raises a `UnicodeError` at each attempt to
    connect, which is no failure of the network.
    """
    try:
        return bool(name.encode("idna"))
    except UnicodeError:
        return False
