"""Compile a record of the contract into readers, so that mapping a document is one walk over its members.

A reader is a closure for one field, compiled once and called for every document. It takes a JSON value that is not null
and returns the record's value. A value that it cannot read is noted in the `Pass` as a fault of its path. The return
value is then meaningless, since the document will be parked.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import IntEnum
from types import MappingProxyType
from typing import Annotated, Any, get_args, get_origin

from pydantic import AwareDatetime

from bridge.contract.fields import (
    UNKNOWN,
    Bits,
    Characters,
    ContractRecord,
    Digits,
    kept_words,
    plain,
    raw_name,
    words_of,
)
from bridge.mapping.json_body import Real, to_json_text
from bridge.mapping.profile import Flag
from bridge.mapping.values import FixedPoint, day_of_text, exact, instant_of_epoch, instant_of_text


class UnusableFault(IntEnum):
    """Details of `unusable`, in the order of precedence: the lowest one found is reported."""

    NO_KEY = 0
    BAD_KEY = 1
    BAD_ID = 2
    BAD_TIME = 3
    BAD_VERSION = 4
    MISSING_FIELD = 5
    WRONG_TYPE = 6
    OUT_OF_RANGE = 7


class Pass:
    """Faults, leniencies and unknown members noted while reading one document."""

    __slots__ = ("extensions", "field", "flags", "indexes", "prefixes", "worst")

    def __init__(self, prefixes: tuple[str, ...] = ()) -> None:
        # The detail of highest precedence; None while the document is usable.
        self.worst: UnusableFault | None = None
        self.field = ""  # path of the first field with that detail; array indexes and map keys as `*`
        self.flags: set[Flag] = set()  # leniencies used
        # JSON pointer from the root of the body -> JSON text of an unknown subtree.
        self.extensions: dict[str, str] = {}
        self.indexes: list[int] = []  # positions in the arrays that enclose the field being read, outermost first
        self.prefixes = prefixes  # key prefixes that are configured for other sources

    def fault(self, detail: UnusableFault, path: str) -> None:
        """Note that the field at `path` makes the document unusable."""
        if self.worst is None or detail < self.worst:
            self.worst = detail
            self.field = path

    def keep(self, path: str, name: str, value: object) -> None:
        """Keep the unknown member `name` of the object at `path` by its JSON pointer (RFC 6901, section 3)."""
        for index in self.indexes:
            path = path.replace("*", str(index), 1)
        escaped = name.replace("~", "~0").replace("/", "~1")
        self.extensions[f"{path}/{escaped}"] = to_json_text(value)


Read = Callable[[object, Pass], object]
"""Reads a value; raises `ValueError` for a wrong type, `OverflowError` for a value out of range."""
Put = Callable[[dict[str, object], object, Pass], None]
"""Reads one member of an object into its record."""

# docs/contract.md §3: an int or long field may be a string of 1-18 ASCII digits, a decimal `-?digits[.digits]`.
_INTEGER_TEXT = re.compile(r"[0-9]{1,18}")
_DECIMAL_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def put_text(name: str, path: str) -> Put:
    """Return a reader of strings; without a nested call, for speed, since most fields are strings."""

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(UnusableFault.WRONG_TYPE, path)
        out[name] = item

    return put


def put_read(name: str, path: str, read: Read) -> Put:
    """Return a reader that stores the result of `read`."""

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        try:
            out[name] = read(item, run)
        except OverflowError:
            run.fault(UnusableFault.OUT_OF_RANGE, path)
        except ValueError:
            run.fault(UnusableFault.WRONG_TYPE, path)

    return put


def put_nothing(_out: dict[str, object], _item: object, _run: Pass) -> None:
    """Skip a known member that is read elsewhere."""


def put_word(name: str, path: str, words: Iterable[str]) -> Put:
    """Return a reader of enum values; an unknown value becomes UNKNOWN and is kept in its raw field."""
    listed = frozenset(words) - {UNKNOWN}
    raw = raw_name(name)

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(UnusableFault.WRONG_TYPE, path)
        elif item in listed:
            out[name] = item
        else:
            out[name] = UNKNOWN
            out[raw] = item
            run.flags.add("enum_unknown")

    return put


def guarded(
    path: str,
    read: Read,
    *,
    wrong: UnusableFault = UnusableFault.WRONG_TYPE,
    beyond: UnusableFault = UnusableFault.OUT_OF_RANGE,
) -> Callable[[object, Pass], object]:
    """Wrap `read` to note faults instead of raising, and then return None."""

    def guard(item: object, run: Pass) -> object:
        try:
            return read(item, run)
        except OverflowError:
            run.fault(beyond, path)
        except ValueError:
            run.fault(wrong, path)
        return None

    return guard


def text_of_id(item: object) -> str | None:
    """Read an id: a string, or the decimal text of a JSON integer."""
    if type(item) is str:
        return item
    return str(item) if type(item) is int else None


def _text(item: object, _run: Pass) -> object:
    if type(item) is not str:
        raise ValueError
    return item


def _id(item: object, run: Pass) -> str:
    if type(item) is int:
        run.flags.add("integer_as_string_id")
    text = text_of_id(item)
    if text is None:
        raise ValueError
    return text


def _id_of(length: Characters) -> Read:
    def read(item: object, run: Pass) -> str:
        text = _id(item, run)
        if len(text) > length.most:
            raise OverflowError
        return text

    return read


def _truth(item: object, _run: Pass) -> object:
    if type(item) is not bool:
        raise ValueError
    return item


def _integer(bits: Bits) -> Read:
    least, greatest = bits.least, bits.greatest

    def read(item: object, run: Pass) -> int:
        if type(item) is str and _INTEGER_TEXT.fullmatch(item):
            run.flags.add("string_as_integer")
            item = int(item)
        if type(item) is not int:
            raise ValueError
        if not least <= item <= greatest:
            raise OverflowError
        return item

    return read


def _decimal(digits: Digits) -> Read:
    """Return a reader of decimal strings and JSON numbers in any notation."""
    fit = FixedPoint(digits).fit

    def read(item: object, run: Pass) -> Decimal:
        if type(item) is str and _DECIMAL_TEXT.fullmatch(item):
            number = exact(item)
        elif type(item) is int or type(item) is Real:
            run.flags.add("decimal_from_number")
            number = exact(item.lexeme if isinstance(item, Real) else str(item))
        else:
            raise ValueError
        fitted = fit(number)
        if fitted is None:
            raise OverflowError
        if fitted != number:
            run.flags.add("decimal_rounded")
        return fitted

    return read


def _day(item: object, _run: Pass) -> date:
    if type(item) is not str:
        raise ValueError
    return day_of_text(item)


def read_instant(item: object, run: Pass) -> datetime:
    """Read an instant from text or an epoch number."""
    if type(item) is str:
        return instant_of_text(item, run.flags)
    if type(item) is int or type(item) is Real:
        return instant_of_epoch(to_json_text(item), run.flags)
    raise ValueError


class Members:
    """The known members of one object, each with its reader."""

    def __init__(self, path: str, puts: Mapping[str, Put], required: Iterable[str]) -> None:
        self.path = path  # path of the object, array indexes as `*`
        self.puts = dict(puts)  # member name -> reader
        self.required = tuple(required)  # names of members that must be present and not null

    def read(self, item: dict[str, object], out: dict[str, object], run: Pass) -> None:
        """Read the object `item` into `out`; unknown members are kept, nulls count as absent."""
        for name in self.required:
            if item.get(name) is None:
                run.fault(UnusableFault.MISSING_FIELD, f"{self.path}/{name}")
        find = self.puts.get
        for name, value in item.items():
            put = find(name)
            if put is None:
                run.keep(self.path, name, value)
            elif value is not None:
                put(out, value, run)


def _record(members: Members, blank: dict[str, object]) -> Read:
    """Return a reader of nested records; `blank` is the record before anything is read."""
    read_members = members.read

    def read(item: object, run: Pass) -> dict[str, object]:
        if type(item) is not dict:
            raise ValueError
        out = blank.copy()
        read_members(item, out, run)
        return out

    return read


def _array(path: str, read_element: Read) -> Read:
    """Return a reader of arrays; null elements are skipped."""
    guard = guarded(f"{path}/*", read_element)

    def read(item: object, run: Pass) -> list[object]:
        if type(item) is not list:
            raise ValueError
        out = []
        for index, element in enumerate(item):
            run.indexes.append(index)
            out.append(guard(element, run))
            run.indexes.pop()
        return out

    return read


def _map(path: str) -> Read:
    """Return a reader of string maps; keys come from the sender, so a fault's path has `*` instead."""

    def read(item: object, run: Pass) -> dict[str, object]:
        if type(item) is not dict:
            raise ValueError
        if not all(type(value) is str for value in item.values()):
            run.fault(UnusableFault.WRONG_TYPE, f"{path}/*")
        return dict(item)

    return read


def put_words(name: str, path: str, words: Iterable[str]) -> Put:
    """Return a reader of arrays of enum values; unknown ones become UNKNOWN and are kept in order."""
    listed = frozenset(words) - {UNKNOWN}
    raw = raw_name(name)

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not list:
            run.fault(UnusableFault.WRONG_TYPE, path)
            return
        if not all(type(word) is str for word in item):
            run.fault(UnusableFault.WRONG_TYPE, f"{path}/*")
            return
        out[name] = [word if word in listed else UNKNOWN for word in item]
        out[raw] = unlisted = [word for word in item if word not in listed]
        if unlisted:
            run.flags.add("enum_unknown")

    return put


_SIMPLE: Mapping[object, Read] = MappingProxyType({bool: _truth, date: _day, AwareDatetime: read_instant})


def blank_record(model: type[ContractRecord]) -> dict[str, object]:
    """Return a record with the default of every field, in order; its copies share its lists."""
    blank = {}
    for name, field in model.model_fields.items():
        blank[name] = None if field.is_required() else field.get_default(call_default_factory=True)
    return blank


def compile_members(model: type[ContractRecord], path: str, *, without: frozenset[str] = frozenset()) -> Members:
    """Compile readers for the object at `path` that fills `model`, except `without` and raw enum fields."""
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
    return put_read(name, path, _read(name, plain, path))


def _may_be_integer(name: str) -> bool:
    """Return whether docs/contract.md §3 allows a JSON integer for this string field."""
    return name == "id" or name.endswith("_id")


def _read(name: str, plain: Any, path: str) -> Read:
    origin, inner = get_origin(plain), get_args(plain)
    if origin is list:
        return _array(path, _read("", inner[0], f"{path}/*"))
    if origin is dict:
        return _map(path)
    if origin is Annotated:
        return _sized(inner[1])
    if plain in _SIMPLE:
        return _SIMPLE[plain]
    if plain is str:
        return _id if _may_be_integer(name) else _text
    return _record(compile_members(plain, path), blank_record(plain))


def _sized(size: object) -> Read:
    if isinstance(size, Bits):
        return _integer(size)
    if isinstance(size, Digits):
        return _decimal(size)
    if isinstance(size, Characters):
        return _id_of(size)
    raise TypeError(size)
