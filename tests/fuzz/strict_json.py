"""Any body compared with two other parsers: equal results, and refusals for the same reasons."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import orjson

from bridge.event import ParkReason
from bridge.mapping import drx_standard
from bridge.mapping.json_body import Real, parse, to_json_text
from tests.profile_properties import assert_closed
from tests.unit.profile_documents import a_delivery

WORDS = (
    *(b"{", b"}", b"[", b"]", b":", b",", b'"', b"true", b"false", b"null", b"-0", b"1e400", b"NaN", b"-Infinity"),
    *(b"9223372036854775807", b"-9223372036854775809", b"\\ud83d\\ude00", b"\\ud800", b"\\u0000", b"\xef\xbb\xbf"),
    *(b"\xed\xa0\x80", b"\xc0\xaf", b"\x00", b'{"a":1,"a":2}', b"[[[[[[[[[[[[[[[[", b"0.1", b"1E5", b"\r\n\t "),
    *(b'"type":', b'"data":', b'"environment":"sandbox"', b'"version":"1"', b'"prescription_id":'),
)
SPACE = b" \t\n\r"
# The table of docs/contract.md §2: what may be wrong side by side, in the order in which it is told.
SIDE_BY_SIDE = ("nan", "duplicate_key", "surrogate", "number_range", "depth", "not_object")
DEPTH_MAX = 32
# orjson stops at 1,024 levels and Python's parser at some thousand calls; below this both can judge.
DEPTH_JUDGED = 500


class Number(NamedTuple):
    lexeme: str


class Constant(NamedTuple):
    name: str


class Pairs(NamedTuple):
    """An object with all its members, also those of the same name."""

    members: list[tuple[str, Any]]


DECODER = json.JSONDecoder(object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=Constant)


def check(content: bytes) -> None:
    outcome = parse(content)
    if content.count(b"[") + content.count(b"{") < DEPTH_JUDGED:
        expected = reference(content)
        if isinstance(outcome, ParkReason):
            assert (outcome.reason, outcome.detail) == ("malformed_json", expected)
        else:
            assert isinstance(expected, Pairs)
            assert same(outcome, expected)
    if isinstance(outcome, ParkReason):
        assert outcome.reason == "malformed_json"
        assert (outcome.field, outcome.key) == ("", None)
        return
    assert parse(to_json_text(outcome).encode()) == outcome
    assert_closed(drx_standard.map(a_delivery(content), outcome))


def reference(content: bytes) -> Pairs | str:
    """Return the object, or the detail of the reason."""
    if not content.strip(SPACE):
        return "empty"
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    if text.startswith("\ufeff"):
        return "bom"
    lead = len(text) - len(text.lstrip(SPACE.decode()))
    try:
        value, end = DECODER.raw_decode(text, lead)
    except ValueError:
        assert not orjson_reads(content)
        return "syntax"
    if text[end:].strip(SPACE.decode()):
        assert not orjson_reads(content)
        return "trailing"
    broken = set(faults(value, 0))
    assert orjson_reads(content) or broken & {"nan", "surrogate", "number_range"}
    return next((detail for detail in SIDE_BY_SIDE if detail in broken), None) or as_object(value)


def as_object(value: Any) -> Pairs:
    assert isinstance(value, Pairs)
    return value


def orjson_reads(content: bytes) -> bool:
    try:
        orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return True


def faults(value: Any, depth: int) -> Iterator[str]:
    """Return every rule of the contract that a value breaks."""
    if depth == 0 and not isinstance(value, Pairs):
        yield "not_object"
    if depth >= DEPTH_MAX and isinstance(value, Pairs | list):
        yield "depth"
    names = [name for name, _ in value.members] if isinstance(value, Pairs) else []
    if len(set(names)) != len(names):
        yield "duplicate_key"
    match value:
        case Constant():
            yield "nan"
        case Number(lexeme) if not in_range(lexeme):
            yield "number_range"
        case str() if any("\ud800" <= character <= "\udfff" for character in value):
            yield "surrogate"
        case Pairs(members):
            value = [*names, *(inner for _, inner in members)]
    for each in value if isinstance(value, list) else ():
        yield from faults(each, depth + 1)


def in_range(lexeme: str) -> bool:
    """Return whether a number fits an Avro long or a double."""
    if lexeme.lstrip("-").isdigit():
        return len(lexeme) <= 20 and -(2**63) <= int(lexeme) < 2**63
    return math.isfinite(float(lexeme))


def same(ours: object, theirs: Any) -> bool:
    """Compare a parsed value, including types, with that of the reference."""
    match theirs:
        case Pairs(members):
            return (
                type(ours) is dict
                and list(ours) == [name for name, _ in members]
                and all(same(mine, inner) for mine, (_, inner) in zip(ours.values(), members, strict=True))
            )
        case list():
            return type(ours) is list and len(ours) == len(theirs) and all(map(same, ours, theirs))
        case Number("-0"):
            return ours == Real("-0")
        case Number(lexeme):
            if lexeme.lstrip("-").isdigit():
                return type(ours) is int and ours == int(lexeme)
            return ours == Real(lexeme)
        case _:
            return type(ours) is type(theirs) and ours == theirs
