"""Convert strings of foreign records so that PostgreSQL can store and index them."""

import hashlib

# Bytes; a PostgreSQL index row holds about 2,700, and has three such strings. Our own ids and keys are short.
TEXT_MAX_BYTES = 512


def stored_text(text: str) -> str:
    r"""Return a string that PostgreSQL can store and index; our own strings stay unchanged.

    U+0000, which PostgreSQL refuses, becomes U+FFFD; a very long one becomes `\h` and its SHA-256.
    """
    if len(text) * 4 > TEXT_MAX_BYTES:  # UTF-8 characters have at most 4 bytes
        encoded = text.encode()
        if len(encoded) > TEXT_MAX_BYTES:
            return "\\h" + hashlib.sha256(encoded).hexdigest()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
