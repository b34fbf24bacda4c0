"""Keys as operators type them: with a vendor's prefix (`ds:1234`) or without it (`1234`)."""

from collections.abc import Collection

from bridge.errors import ConfigError


def whole_key(wanted: bytes, keys: Collection[bytes]) -> bytes:
    """Return the one of `keys` that an operator means, else `wanted`; `ConfigError` if there are several."""
    prefixes = {key.partition(b":")[0] + b":" for key in keys if has_number(key, wanted)}
    if wanted in keys or not prefixes:
        return wanted
    if len(prefixes) > 1:
        named = ", ".join(sorted(prefix.decode(errors="replace") for prefix in prefixes))
        raise ConfigError(f"several vendors have this number; write it with one of the prefixes {named}")
    return prefixes.pop() + wanted


def has_number(key: bytes | None, wanted: bytes) -> bool:
    """Return whether a key is `wanted` with a vendor's prefix."""
    return bool(wanted) and key is not None and key.partition(b":")[2] == wanted
