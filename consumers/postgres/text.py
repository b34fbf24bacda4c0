"""Texts of foreign records as PostgreSQL can hold and index them."""

import hashlib

# A row of a PostgreSQL index holds about 2,700 bytes, and three such texts are in one; our own ids and keys are short.
TEXT_MAX_BYTES = 512


def stored_text(text: str) -> str:
    r"""Return a text of a foreign record as PostgreSQL can hold and index it; texts of our own come back unchanged.

    U+0000, which PostgreSQL refuses, becomes U+FFFD; a very long one becomes `\h` and its SHA-256.
    """
    if len(text) * 4 > TEXT_MAX_BYTES:  # no UTF-8 character is longer than 4 bytes
        encoded = text.encode()
        if len(encoded) > TEXT_MAX_BYTES:
            return "\\h" + hashlib.sha256(encoded).hexdigest()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
