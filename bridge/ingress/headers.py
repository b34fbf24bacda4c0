"""Read the headers of a delivery in one pass; anything ambiguous is refused."""

import random
import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from bridge.errors import DeliveryRefusedError
from bridge.proof.origin import HEADERS as ORIGIN_HEADERS
from bridge.proof.scheme import Scheme

# Headers read from every delivery; schemes read more.
_WANTED = frozenset(
    {
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"expect",
        b"traceparent",
        b"transfer-encoding",
        b"user-agent",
    }
)
_JSON = b"application/json"
_COMMON_TYPES = frozenset({_JSON, b"application/json; charset=utf-8"})
# JSON content type, in any letter case, with only charset=utf-8 as a parameter (docs/contract.md §1).
_UTF8_JSON = re.compile(rb'application/json[ \t]*(?:;[ \t]*charset=(?:utf-8|"utf-8")[ \t]*)?', re.IGNORECASE)
_CHARSET = re.compile(rb';[ \t]*charset="?([^";]*)', re.IGNORECASE)
# W3C Trace Context, version 00; all zeros is invalid there.
_TRACEPARENT = re.compile(rb"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")


class HeaderRules(NamedTuple):
    """The headers to pick."""

    wanted: frozenset[bytes]  # names to read; all others are ignored
    single: frozenset[bytes]  # names that must not be repeated (docs/contract.md §1)


def header_rules(schemes: Iterable[Scheme], *, further: Iterable[frozenset[bytes]] = ()) -> HeaderRules:
    """Return the union of the rules of all sources; `further` headers must not be repeated either."""
    single = frozenset(ORIGIN_HEADERS).union(*further)
    wanted = _WANTED | single
    for scheme in schemes:
        wanted |= scheme.headers | scheme.joined
        single |= scheme.headers
    return HeaderRules(wanted, single)


def read_headers(raw_headers: Iterable[tuple[bytes, bytes]], rules: HeaderRules) -> dict[bytes, bytes]:
    """Return the headers of the rules, names in lower case; repeated ones are joined (RFC 9110 5.3) or refused."""
    wanted, single = rules
    headers: dict[bytes, bytes] = {}
    for raw_name, value in raw_headers:
        name = raw_name.lower()
        if name in wanted:
            if name not in headers:
                headers[name] = value
            elif name in single:
                raise DeliveryRefusedError("header_duplicated", reason="format")
            else:
                headers[name] += b"," + value
    return headers


def check_content(
    headers: Mapping[bytes, bytes], *, size_max: int, types: tuple[bytes, ...] = (), json: bool = True
) -> None:
    """Refuse an unread body that is neither plain JSON nor of `types`, or is declared too large.

    Of the parameters only charset is checked: it must be UTF-8, or for XML also UTF-16. `application/json` allows no
    other parameter. `+xml` stands for any type with that suffix.
    """
    if headers.get(b"content-encoding", b"identity").strip().lower() != b"identity":
        raise DeliveryRefusedError("content_encoding")
    content_type = headers.get(b"content-type", b"")
    if not json or content_type not in _COMMON_TYPES:
        name = content_type.partition(b";")[0].strip().lower()
        is_listed = name in types or (b"+" in name and b"+" + name.rpartition(b"+")[2] in types)
        charset = _CHARSET.search(content_type)
        is_utf8 = charset is None or charset[1].lower() in ((b"utf-8",) if json else (b"utf-8", b"utf-16"))
        if not (is_listed and is_utf8) and not (json and _UTF8_JSON.fullmatch(content_type.strip())):
            raise DeliveryRefusedError("content_type")
    if int(headers.get(b"content-length") or 0) > size_max:
        raise DeliveryRefusedError("body_too_large")


def trace_of(headers: Mapping[bytes, bytes]) -> str:
    """Return the trace context for records: the sender's trace id or a new one, and a new span id."""
    given = _TRACEPARENT.fullmatch(headers.get(b"traceparent", b""))
    trace = given[1].decode() if given else f"{random.getrandbits(128) | 1:032x}"
    return f"00-{trace}-{random.getrandbits(64) | 1:016x}-01"
