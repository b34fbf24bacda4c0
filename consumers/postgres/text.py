"""Strings that PostgreSQL can store and index, and names of schemas."""

import hashlib
import re

# Bytes; a PostgreSQL index row holds about 2,700, and has three such strings. Our own ids and keys are short.
TEXT_MAX_BYTES = 512
# A schema is part of a group id and of statements; PostgreSQL reserves `pg_` and truncates names after 63 bytes.
is_schema = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}").fullmatch
# The schema of the runtime: a consumer's tables, which may be dropped, must not be there.
LEDGER_SCHEMA = "drx_consumer"


def stored_text(text: str) -> str:
    r"""Return a string that PostgreSQL can store and index; our own strings stay unchanged.

    U+0000, which PostgreSQL refuses, becomes U+FFFD; a very long one becomes `\h` and its SHA-256.
    """
    if len(text) * 4 > TEXT_MAX_BYTES:  # UTF-8 characters have at most 4 bytes
        encoded = text.encode()
        if len(encoded) > TEXT_MAX_BYTES:
            return "\\h" + hashlib.sha256(encoded).hexdigest()
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
