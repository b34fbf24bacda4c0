"""Compile a record of the contract into readers, so that mapping a document is one walk over its members.

A reader is a closure for one field, compiled once and called for every document. It takes a JSON value that is not
null and gives the record's value; what it cannot read it notes in the `Pass` as a fault of its path, and its answer
then means nothing, since the document will be parked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin

from pydantic import AwareDatetime

from bridge.contract.fields import UNKNOWN, Bits, Digits, Record, kept_words, plain, raw_name, words_of
from bridge.ingress.json_body import Real, to_json_text
from bridge.ingress.profiles.profile import Flag
from bridge.ingress.profiles.values import FixedPoint, day_of_text, exact, instant_of_epoch, instant_of_text


class Fault(IntEnum):
    """Why a document is `unusable`, in the order of precedence: the lowest one found anywhere is the one reported."""

    NO_KEY = 0
    BAD_KEY = 1
    BAD_ID = 2
    BAD_TIME = 3
    BAD_VERSION = 4
    MISSING_FIELD = 5
    WRONG_TYPE = 6
    OUT_OF_RANGE = 7


class Pass:
    """The notes of one pass."""

    __slots__ = ("extensions", "field", "flags", "indexes", "prefixes", "worst")

    def __init__(self, prefixes: tuple[str, ...] = ()) -> None:
        # The first detail in the order of precedence, None while the document is usable.
        self.worst: Fault | None = None
        self.field = ""  # path of the first field with that detail; array indexes and map keys as `*`
        self.flags: set[Flag] = set()  # leniencies used
        # JSON pointer from the root of the body -> JSON text of an unknown subtree.
        self.extensions: dict[str, str] = {}
        self.indexes: list[int] = []  # positions in the arrays that enclose the field being read, outermost first
        self.prefixes = prefixes  # beginnings of keys that are configured for other sources

    def fault(self, detail: Fault, path: str) -> None:
        """Note that the field at `path` makes the document unusable."""
        if self.worst is None or detail < self.worst:
            self.worst = detail
            self.field = path

    def keep(self, path: str, name: str, value: object) -> None:
        """Keep the unknown member `name` of the object at `path`, whole.

        Source: RFC 6901, section 3 (the escapes of a JSON pointer).
        """
        for index in self.indexes:
            path = path.replace("*", str(index), 1)
        escaped = name.replace("~", "~0").replace("/", "~1")
        self.extensions[f"{path}/{escaped}"] = to_json_text(value)


Read = Callable[[object, Pass], object]
# Reads one member of an object into the record that it belongs to.
Put = Callable[[dict[str, object], object, Pass], None]

# docs/contract.md §3: an int or long field may be a string of 1-18 ASCII digits, a decimal `-?digits[.digits]`.
_INTEGER_TEXT = re.compile(r"[0-9]{1,18}")
_DECIMAL_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def put_text(name: str, path: str) -> Put:
    """Take a string; the commonest field, so without the second call of `put`."""

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(Fault.WRONG_TYPE, path)
        out[name] = item

    return put


def put_read(name: str, read: Read) -> Put:
    """Take what `read` gives."""

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        out[name] = read(item, run)

    return put


def put_nothing(_out: dict[str, object], _item: object, _run: Pass) -> None:
    """Pass over a member that is known and read elsewhere."""


def put_word(name: str, path: str, words: Iterable[str]) -> Put:
    """Take a word of a list; another one becomes UNKNOWN and is kept beside it."""
    listed = frozenset(words) - {UNKNOWN}
    raw = raw_name(name)

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(Fault.WRONG_TYPE, path)
        elif item in listed:
            out[name] = item
        else:
            out[name] = UNKNOWN
            out[raw] = item
            run.flags.add("enum_unknown")

    return put


def read_text(path: str) -> Read:
    """Read a string."""

    def read(item: object, run: Pass) -> object:
        if type(item) is not str:
            run.fault(Fault.WRONG_TYPE, path)
        return item

    return read


def text_of_id(item: object) -> str | None:
    """Read an id: a string, or the decimal text of a JSON integer."""
    if type(item) is str:
        return item
    return str(item) if type(item) is int else None


def read_id(path: str) -> Read:
    """Read a string that may be a JSON integer."""

    def read(item: object, run: Pass) -> str | None:
        if type(item) is str:
            return item
        if type(item) is int:
            run.flags.add("integer_as_string_id")
            return str(item)
        run.fault(Fault.WRONG_TYPE, path)
        return None

    return read


def read_truth(path: str) -> Read:
    """Read true or false."""

    def read(item: object, run: Pass) -> object:
        if type(item) is not bool:
            run.fault(Fault.WRONG_TYPE, path)
        return item

    return read


def read_integer(path: str, bits: Bits) -> Read:
    """Read a JSON integer, or a string of digits."""
    least, greatest = bits.least, bits.greatest

    def read(item: object, run: Pass) -> int | None:
        if type(item) is int:
            number = item
        elif type(item) is str and _INTEGER_TEXT.fullmatch(item):
            run.flags.add("string_as_integer")
            number = int(item)
        else:
            run.fault(Fault.WRONG_TYPE, path)
            return None
        if not least <= number <= greatest:
            run.fault(Fault.OUT_OF_RANGE, path)
        return number

    return read


def read_decimal(path: str, digits: Digits) -> Read:
    """Read a decimal string, or a JSON number of any spelling."""
    fit = FixedPoint(digits).fit

    def read(item: object, run: Pass) -> Decimal | None:
        if type(item) is str and _DECIMAL_TEXT.fullmatch(item):
            number = exact(item)
        elif type(item) is int:
            run.flags.add("decimal_from_number")
            number = Decimal(item)
        elif type(item) is Real:
            run.flags.add("decimal_from_number")
            number = exact(item.lexeme)
        else:
            run.fault(Fault.WRONG_TYPE, path)
            return None
        fitted = fit(number)
        if fitted is None:
            run.fault(Fault.OUT_OF_RANGE, path)
        elif fitted != number:
            run.flags.add("decimal_rounded")
        return fitted

    return read


def read_day(path: str) -> Read:
    """Read a calendar day."""

    def read(item: object, run: Pass) -> date | None:
        if type(item) is str:
            try:
                return day_of_text(item)
            except OverflowError:
                run.fault(Fault.OUT_OF_RANGE, path)
                return None
            except ValueError:
                pass
        run.fault(Fault.WRONG_TYPE, path)
        return None

    return read


def read_instant(path: str, *, wrong: Fault = Fault.WRONG_TYPE, beyond: Fault = Fault.OUT_OF_RANGE) -> Read:
    """Read an instant of text or an epoch number; `wrong` and `beyond` are the faults of what is none or too far."""

    def read(item: object, run: Pass) -> datetime | None:
        try:
            if type(item) is str:
                return instant_of_text(item, run.flags)
            if type(item) is int:
                return instant_of_epoch(str(item), run.flags)
            if type(item) is Real:
                return instant_of_epoch(item.lexeme, run.flags)
        except OverflowError:
            run.fault(beyond, path)
            return None
        except ValueError:
            pass
        run.fault(wrong, path)
        return None

    return read


class Members:
    """The members of one object: which of them the contract knows, and where each goes."""

    def __init__(self, path: str, puts: Mapping[str, Put], required: Iterable[str]) -> None:
        self.path = path  # path of the object, array indexes as `*`
        self.puts = dict(puts)  # member name -> what reads it
        self.required = tuple(required)  # names that must be there and not null

    def read(self, item: dict[str, object], out: dict[str, object], run: Pass) -> None:
        """Read the object `item` into `out`; an unknown member is kept, a null is the same as no member."""
        for name in self.required:
            if item.get(name) is None:
                run.fault(Fault.MISSING_FIELD, f"{self.path}/{name}")
        find = self.puts.get
        for name, value in item.items():
            put = find(name)
            if put is None:
                run.keep(self.path, name, value)
            elif value is not None:
                put(out, value, run)


def read_record(members: Members, blank: dict[str, object]) -> Read:
    """Read an object into a record of its own; `blank` is that record with nothing read."""
    read_members, path = members.read, members.path

    def read(item: object, run: Pass) -> dict[str, object] | None:
        if type(item) is not dict:
            run.fault(Fault.WRONG_TYPE, path)
            return None
        out = blank.copy()
        read_members(item, out, run)
        return out

    return read


def read_array(path: str, read_element: Read) -> Read:
    """Read an array; a null is no element."""

    def read(item: object, run: Pass) -> list[object] | None:
        if type(item) is not list:
            run.fault(Fault.WRONG_TYPE, path)
            return None
        out = []
        for index, element in enumerate(item):
            run.indexes.append(index)
            out.append(read_element(element, run))
            run.indexes.pop()
        return out

    return read


def read_map(path: str) -> Read:
    """Read a map of strings; its keys come from the source, so they stand as `*` in a fault."""

    def read(item: object, run: Pass) -> dict[str, object] | None:
        if type(item) is not dict:
            run.fault(Fault.WRONG_TYPE, path)
            return None
        for value in item.values():
            if type(value) is not str:
                run.fault(Fault.WRONG_TYPE, f"{path}/*")
        return dict(item)

    return read


def put_words(name: str, path: str, words: Iterable[str]) -> Put:
    """Take an array of words of a list; others become UNKNOWN and are kept beside it, in their order."""
    listed = frozenset(words) - {UNKNOWN}
    raw = raw_name(name)

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not list:
            run.fault(Fault.WRONG_TYPE, path)
            return
        if not all(type(word) is str for word in item):
            run.fault(Fault.WRONG_TYPE, f"{path}/*")
            return
        out[name] = [word if word in listed else UNKNOWN for word in item]
        out[raw] = unlisted = [word for word in item if word not in listed]
        if unlisted:
            run.flags.add("enum_unknown")

    return put


_SIMPLE: Mapping[object, Callable[[str], Read]] = MappingProxyType(
    {bool: read_truth, date: read_day, AwareDatetime: read_instant}
)


def blank_record(model: type[Record]) -> dict[str, object]:
    """Make the record that stands when nothing was read: every name in the schema's order, every default.

    A default that is a list is shared by all copies of it; records are values, nobody changes them.
    """
    blank = {}
    for name, field in model.model_fields.items():
        blank[name] = None if field.is_required() else field.get_default(call_default_factory=True)
    return blank


def compile_members(model: type[Record], path: str, *, without: frozenset[str] = frozenset()) -> Members:
    """Compile the object at `path` that fills `model`, but for the fields `without`.

    No member fills those for the words outside an enum either.
    """
    fields = model.model_fields
    passed_over = without | kept_words(model)
    names = [name for name in fields if name not in passed_over]
    return Members(
        path,
        puts={name: _put(name, plain(fields[name]), f"{path}/{name}") for name in names},
        required=[name for name in names if fields[name].is_required()],
    )


def _put(name: str, plain: object, path: str) -> Put:
    words = words_of(plain)
    if words:
        return put_words(name, path, words) if get_origin(plain) is list else put_word(name, path, words)
    if plain is str and not _may_be_integer(name):
        return put_text(name, path)
    return put_read(name, _read(name, plain, path))


def _may_be_integer(name: str) -> bool:
    """Return whether docs/contract.md §3 allows a JSON integer for this string."""
    return name == "id" or name.endswith("_id")


def _read(name: str, plain: Any, path: str) -> Read:
    origin, inner = get_origin(plain), get_args(plain)
    if origin is list:
        return read_array(path, _read("", inner[0], f"{path}/*"))
    if origin is dict:
        return read_map(path)
    if origin is Annotated:
        return _read_sized(inner[1], path)
    if plain in _SIMPLE:
        return _SIMPLE[plain](path)
    if plain is str:
        return read_id(path) if _may_be_integer(name) else read_text(path)
    return read_record(compile_members(plain, path), blank_record(plain))


def _read_sized(size: object, path: str) -> Read:
    if isinstance(size, Bits):
        return read_integer(path, size)
    if isinstance(size, Digits):
        return read_decimal(path, size)
    raise TypeError(path)
