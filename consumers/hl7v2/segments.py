"""Write HL7 v2 segments, with values escaped so that they cannot break out of their fields.

A segment is given as its name and a mapping from the number of a field to its value:

- a string: one value, escaped; `Formatted` keeps line breaks;
- a tuple: components, each a string or a tuple of subcomponents;
- a list: repetitions of the field, each as above;
- `NULL`: a required field without a known value.

Source: HL7 2.5.1, chapter 2, sections 2.5 (delimiters) and 2.7 (escape sequences).
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

END = "\r"

_DELIMITERS = "|^~\\&"
_ESCAPED = MappingProxyType({"|": "\\F\\", "^": "\\S\\", "&": "\\T\\", "~": "\\R\\", "\\": "\\E\\"})
_lines = re.compile(r"\r\n|[\r\n\v\f\x85\u2028\u2029]")
_BREAK = "\\.br\\"


class Formatted(str):
    """Text that keeps its line breaks, for fields of the types FT and TX."""

    __slots__ = ()


class _Null(str):
    __slots__ = ()


NULL = _Null('""')
"""HL7's null: deletes the receiver's value. A string of two quotes is not null."""


class MessageSegment(NamedTuple):
    """One line of a message; `fields` are numbered from 1."""

    name: str
    fields: Mapping[int, Any]


def write(segments: Iterable[MessageSegment]) -> str:
    """Return the message: each segment ended by a carriage return. The first is MSH, without its fields 1 and 2."""
    return "".join(f"{_line(each)}{END}" for each in segments)


def escape(text: str) -> str:
    """Escape delimiters and remove control characters.

    Line ends become spaces, or in `Formatted` the escape for a line break. A string of two quotes becomes empty, since
    it would be read as null.
    """
    if isinstance(text, _Null):
        return text
    lines = _lines.split(unicodedata.normalize("NFC", text))
    escaped = (_BREAK if isinstance(text, Formatted) else " ").join(map(_escape_line, lines))
    return "" if escaped == NULL else escaped


def dropped(segments: Iterable[MessageSegment]) -> int:
    """Count the characters that `write` leaves out: control characters other than line ends."""
    return sum(_dropped(value) for each in segments for value in each.fields.values())


def _dropped(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(map(_dropped, value))
    if not value or value.isprintable():
        return 0
    return sum(map(_is_control, _lines.sub("", value)))


def _escape_line(line: str) -> str:
    kept = line if line.isprintable() else "".join(each for each in line if not _is_control(each))
    return "".join(_ESCAPED.get(each, each) for each in kept) if any(each in kept for each in _DELIMITERS) else kept


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in {"Cc", "Cs"}


def _line(segment: MessageSegment) -> str:
    fields = segment.fields
    if segment.name == "MSH":
        # The first field of MSH is the delimiter itself.
        head, numbers = f"MSH|{_DELIMITERS[1:]}", range(3, max(fields) + 1)
    else:
        head, numbers = segment.name, range(1, max(fields, default=0) + 1)
    return "|".join((head, *(_written(fields.get(number)) for number in numbers))).rstrip("|")


def _written(value: Any, divider: str = "^") -> str:
    """Return a field, a repetition, a component or a subcomponent; `divider` separates the parts of a tuple."""
    match value:
        case list():
            return "~".join(map(_written, value)).rstrip("~")
        case tuple():
            return divider.join(_written(each, "&") for each in value).rstrip(divider)
    return escape(value) if value else ""
