"""Parse a body strictly as one JSON object, with exact numbers; an array only if the source's profile allows it.

A valid body takes one pass of the C scanner and a few cheap checks. Only an invalid body is read a second time, to name
the rule that it breaks.
"""

import json
import math
import re
from base64 import b64decode
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from json.encoder import encode_basestring
from typing import Any, Literal, cast
from urllib.parse import parse_qsl

from bridge.event import ParkReason

DEPTH_MAX = 32  # docs/contract.md §1: the root is depth 1
INT_MIN, INT_MAX = -(2**63), 2**63 - 1  # Avro's `long`
INT_LEXEME_MAX = 20  # characters of INT_MIN; longer integers cannot fit, and int() is quadratic
FIELDS_MAX = 100  # of a form; senders of such bodies have a few, at some 3 µs each

Detail = Literal[
    "empty",
    "not_utf8",
    "bom",
    "syntax",
    "trailing",
    "nan",
    "duplicate_key",
    "surrogate",
    "number_range",
    "depth",
    "not_object",
]
# Rules besides syntax. If several are broken, the first in this order is named.
_NOT_SYNTAX: tuple[Detail, ...] = ("nan", "duplicate_key", "surrogate", "number_range", "depth", "not_object")

_SPACE = " \t\n\r"  # RFC 8259, section 2
_bad_escape = re.compile("%(?![0-9a-fA-F]{2})").search
_skip_space = re.compile(f"[{_SPACE}]*").match
# In valid JSON each backslash starts an escape or is part of the one before, so no match begins within an escape.
_escapes = re.compile(
    r"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)"
).finditer


@dataclass(frozen=True, slots=True)
class Real:
    """A JSON number with a fraction or an exponent, or `-0`, exactly as written."""

    lexeme: str


class _RuleBrokenError(ValueError):
    """A value breaks one of the rules."""


def parse(body: bytes, *, arrays: bool = False) -> dict[str, object] | ParkReason:
    """Parse a body; never raises.

    Args:
        body: Exact bytes received.
        arrays: Allow an array; the result may then be a list.

    Returns:
        A dict of strings, `int`, `Real`, booleans, None, lists and dicts; or `malformed_json` with the broken rule.
    """
    try:
        text = body.decode()
        document = _read(text)
    except (ValueError, RecursionError):
        return ParkReason("malformed_json", _diagnosis(body, arrays=arrays))
    if (
        (type(document) is not dict and not (arrays and type(document) is list))
        or (body.count(b"{") + body.count(b"[") > DEPTH_MAX and _is_deep(document))
        or (b"\\" in body and (b"\\ud" in body or b"\\uD" in body) and _has_lone_surrogate(text))
    ):
        return ParkReason("malformed_json", _diagnosis(body, arrays=arrays))
    return cast("dict[str, object]", document)


def parse_form(body: bytes, *, field: str, read: Callable[[bytes], object]) -> object:
    """Parse a URL-encoded form into an object of strings, but the value of `field` by `read`; never raises.

    If it is invalid, the result is the reason of `read`, or `malformed_form` with the broken rule.
    """
    try:
        text = body.decode()
        pairs = parse_qsl(text, keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS_MAX)
    except ValueError as exc:
        return ParkReason("malformed_form", "encoding" if isinstance(exc, UnicodeError) else "syntax")
    form: dict[str, Any] = dict(pairs)
    if _bad_escape(text):
        return ParkReason("malformed_form", "encoding")
    if len(form) < len(pairs):
        return ParkReason("malformed_form", "duplicate_field")
    if field not in form:
        return ParkReason("malformed_form", "missing_field", f"/{field}")
    form[field] = found = read(form[field].encode())
    return replace(found, field=f"/{field}") if isinstance(found, ParkReason) else form


def parse_wrapped(body: bytes, *, read: Callable[[bytes], object], pointer: Sequence[str]) -> object:
    """Parse a body by `read`; base64 of JSON in the member at `pointer` becomes that value, other text is kept."""
    document = holder = read(body)
    *way, last = pointer
    for step in way:
        holder = holder.get(step) if isinstance(holder, dict) else None
    if isinstance(holder, dict) and isinstance(text := holder.get(last), str):
        with suppress(ValueError):
            inner = parse(b64decode(text, validate=True), arrays=True)
            holder[last] = text if isinstance(inner, ParkReason) else inner
    return document


def to_json_text(value: object) -> str:
    """Write a parsed value as compact JSON text: numbers as received, and only the escapes that JSON requires."""
    match value:
        case str():
            return encode_basestring(value)
        case Real():
            return value.lexeme
        case bool() | None:
            return "null" if value is None else "true" if value else "false"
        case Mapping():
            return "{" + ",".join(f"{encode_basestring(k)}:{to_json_text(v)}" for k, v in value.items()) + "}"
        case Sequence():
            return "[" + ",".join(map(to_json_text, value)) + "]"
        case _:
            return str(value)


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise _RuleBrokenError
    return members


def _integer(lexeme: str) -> int | Real:
    if len(lexeme) > INT_LEXEME_MAX or not INT_MIN <= (number := int(lexeme)) <= INT_MAX:
        raise _RuleBrokenError
    return number if number or lexeme == "0" else Real(lexeme)


def _real(lexeme: str) -> Real:
    if not math.isfinite(float(lexeme)):
        raise _RuleBrokenError
    return Real(lexeme)


def _constant(_: str) -> object:
    raise _RuleBrokenError


_read = json.JSONDecoder(
    object_pairs_hook=_pairs, parse_int=_integer, parse_float=_real, parse_constant=_constant
).decode


def _is_deep(document: dict[str, object] | list[object]) -> bool:
    level: list[dict[str, object] | list[object]] = [document]
    for _ in range(DEPTH_MAX):
        children = (child for node in level for child in (node.values() if isinstance(node, dict) else node))
        level = [child for child in children if isinstance(child, dict | list)]
    return bool(level)


def _has_lone_surrogate(text: str) -> bool:
    return any(escape["lone"] for escape in _escapes(text))


def _diagnosis(body: bytes, *, arrays: bool) -> Detail:
    """Return the rule that an invalid body breaks; if several, the first in the order of `Detail`."""
    if not body.strip(_SPACE.encode()):
        return "empty"
    try:
        text = body.decode()
    except UnicodeDecodeError:
        return "not_utf8"
    if text.startswith("\ufeff"):
        return "bom"
    survey = _Survey(text, openings="{[" if arrays else "{")
    try:
        survey.value()
    except ValueError:
        return "syntax"
    if not survey.at_end():
        return "trailing"
    if _has_lone_surrogate(text):
        survey.broken.add("surrogate")
    # Without a broken rule, the first pass must have run out of stack.
    return next((detail for detail in _NOT_SYNTAX if detail in survey.broken), "depth")


class _Survey:
    """Reads a value of any depth without recursion, and collects all rules that it breaks besides syntax."""

    def __init__(self, text: str, *, openings: str) -> None:
        self.broken: set[Detail] = set()
        self._text = text
        self._openings = openings
        self._at = 0
        # For each open object its keys so far; None for an open array.
        self._open: list[set[str] | None] = []
        self._scalar = json.JSONDecoder(
            parse_int=self._recording("number_range", _integer),
            parse_float=self._recording("number_range", _real),
            parse_constant=self._recording("nan", _constant),
        ).raw_decode

    def value(self) -> None:
        """Read the value; raise `ValueError` if it is not JSON."""
        if (self._next() or " ") not in self._openings:
            self.broken.add("not_object")
        opened = self._begin()
        while self._open:
            keys = self._open[-1]
            if self._next() == ("]" if keys is None else "}"):
                self._at += 1
                self._open.pop()
                opened = False
                continue
            if not opened:
                self._expect(",")
            if keys is not None:
                self._key(keys)
            opened = self._begin()

    def at_end(self) -> bool:
        """Return whether only white space is left."""
        return not self._next()

    def _begin(self) -> bool:
        """Open an object or array and return True, or skip a scalar."""
        character = self._next()
        if character not in ("{", "["):
            _, self._at = self._scalar(self._text, self._at)
            return False
        self._at += 1
        self._open.append(set() if character == "{" else None)
        if len(self._open) > DEPTH_MAX:
            self.broken.add("depth")
        return True

    def _key(self, seen: set[str]) -> None:
        if self._next() != '"':
            raise _RuleBrokenError
        key, self._at = self._scalar(self._text, self._at)
        if key in seen:
            self.broken.add("duplicate_key")
        seen.add(key)
        self._expect(":")

    def _expect(self, character: str) -> None:
        if self._next() != character:
            raise _RuleBrokenError
        self._at += 1

    def _next(self) -> str:
        """Skip white space and return the next character; empty at the end."""
        character = self._text[self._at : self._at + 1]
        if character in _SPACE and (space := _skip_space(self._text, self._at)):
            self._at = space.end()
            character = self._text[self._at : self._at + 1]
        return character

    def _recording(self, detail: Detail, read: Callable[[str], object]) -> Callable[[str], object]:
        def recording(lexeme: str) -> object:
            try:
                return read(lexeme)
            except _RuleBrokenError:
                self.broken.add(detail)
                return None

        return recording
