"""Strict JSON: the first broken rule is reported, numbers stay exact, and no exception escapes."""

import json

import pytest

from bridge.event import ParkReason
from bridge.mapping.json_body import DEPTH_MAX, Real, parse, to_json_text


def detail_of(body: bytes) -> str:
    parked = parse(body)
    assert isinstance(parked, ParkReason)
    assert parked == ParkReason("malformed_json", parked.detail)
    return parked.detail


def parsed(body: str) -> dict[str, object]:
    document = parse(body.encode())
    assert isinstance(document, dict)
    return document


def nested(depth: int, *, inside: str = "1") -> str:
    return '{"a":' + "[" * (depth - 1) + inside + "]" * (depth - 1) + "}"


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "empty"),
        (b" \t\r\n", "empty"),
        (b'{"a":"\xff"}', "not_utf8"),
        (b'{"a":"\xc0\xaf"}', "not_utf8"),
        ('{"a":1}'.encode("utf-16"), "not_utf8"),
        ('{"a":1}'.encode("utf-16-le"), "syntax"),
        (b'\xef\xbb\xbf{"a":1}', "bom"),
        (b'{"a":1', "syntax"),
        (b'{"a":1,}', "syntax"),
        (b'{"a":[1,]}', "syntax"),
        (b'{"a":01}', "syntax"),
        (b'{"a":nan}', "syntax"),
        (b'{"a":"\n"}', "syntax"),
        (b'{"a":"\\u+123"}', "syntax"),
        (b'{"a":1}//', "trailing"),
        (b"1 2", "trailing"),
        (b'{"a":NaN,"a":1}', "nan"),
        (b'{"a":Infinity}', "nan"),
        (b'{"a":1,"a":1}', "duplicate_key"),
        (b'{"a":1,"\\u0061":1}', "duplicate_key"),
        (b'{"x":[{"a":{"b":1,"b":2}}]}', "duplicate_key"),
        (b'[{"a":1,"a":1}]', "duplicate_key"),
        (b'{"a":"\\ud800"}', "surrogate"),
        (b'{"a":"\\udc00\\ud800"}', "surrogate"),
        (b'{"a":"\\\\\\ud800"}', "surrogate"),
        (b'{"\\uD800":1}', "surrogate"),
        (b'{"a":9223372036854775808}', "number_range"),
        (b'{"a":-9223372036854775809}', "number_range"),
        (b'{"a":1e400}', "number_range"),
        (b'{"a":' + b"9" * 5000 + b"}", "number_range"),
        (nested(DEPTH_MAX + 1).encode(), "depth"),
        (nested(100_000).encode(), "depth"),
        (b'{"a":' * 40_000 + b"1" + b"}" * 40_000, "depth"),
        (b"[" * 33 + b"]" * 33, "depth"),
        (b"[]", "not_object"),
        (b"[" * 32 + b"]" * 32, "not_object"),
        (b"null", "not_object"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_a_broken_rule_is_named(body: bytes, detail: str) -> None:
    assert detail_of(body) == detail


def test_32_levels_are_allowed_also_among_many_brackets() -> None:
    assert parsed(nested(DEPTH_MAX)) == json.loads(nested(DEPTH_MAX))

    wide = '{"a":[' + "[]," * 100 + nested(DEPTH_MAX - 2) + "]}"

    assert parsed(wide) == json.loads(wide)
    assert detail_of(wide.replace("[1]", "[[1]]").encode()) == "depth"


@pytest.mark.parametrize("lexeme", ["1.0", "-0", "-0.0", "1e3", "0.10", "1E-400", "3.14159265358979323846", "1e+2"])
def test_any_other_number_keeps_its_lexeme(lexeme: str) -> None:
    assert parsed(f'{{"a":{lexeme}}}') == {"a": Real(lexeme)}


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ('"\\\\ud800"', "\\ud800"),
        ('"\\u0000"', "\0"),
        ('"\U0001f600"', "\U0001f600"),
        ('"\ufeff"', "\ufeff"),
        ('"NaN"', "NaN"),
    ],
)
def test_strings_that_only_look_like_trouble_are_accepted(text: str, value: str) -> None:
    assert parsed(f' {{"a":{text}}}\r\n\t ') == {"a": value}


def test_text_of_a_value_keeps_lexemes_and_characters() -> None:
    text = '{"a":[1.50,-0,1e3,true,false,null,{},[]],"é\\n\\"":"\U0001f600\\u0001/"}'

    assert to_json_text(parsed(text)) == text


def test_a_source_may_send_an_array() -> None:
    read: object = parse(b'[{"a":1},[]]', arrays=True)

    assert read == [{"a": 1}, []]
    assert parse(b'{"a":1}', arrays=True) == {"a": 1}
