"""Readers of single fields, one closure per field, compiled once and called for every document.

A reader takes a JSON value that is not null and gives the record's value; what it cannot read it notes as a fault of
its path, and its answer then means nothing, since the document will be parked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from datetime import date, datetime
from decimal import Decimal

from bridge.contract.fields import Bits, Digits
from bridge.ingress.profiles.decimals import FixedPoint, exact
from bridge.ingress.profiles.instants import day_of_text, instant_of_epoch, instant_of_text
from bridge.ingress.profiles.passing import Detail, Pass
from bridge.ingress.strict_json import Real

Read = Callable[[object, Pass], object]
# Reads one member of an object into the record that it belongs to.
Put = Callable[[dict[str, object], object, Pass], None]

UNKNOWN = "UNKNOWN"

# docs/contract.md §3: an int or long field may be a string of 1-18 ASCII digits, a decimal `-?digits[.digits]`.
_INTEGER_TEXT = re.compile(r"[0-9]{1,18}")
_DECIMAL_TEXT = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def put_text(name: str, path: str) -> Put:
    """Take a string; the commonest field, so without the second call of `put`."""

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(Detail.WRONG_TYPE, path)
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
    raw = f"raw_{name}"

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not str:
            run.fault(Detail.WRONG_TYPE, path)
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
            run.fault(Detail.WRONG_TYPE, path)
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
        run.fault(Detail.WRONG_TYPE, path)
        return None

    return read


def read_truth(path: str) -> Read:
    """Read true or false."""

    def read(item: object, run: Pass) -> object:
        if type(item) is not bool:
            run.fault(Detail.WRONG_TYPE, path)
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
            run.fault(Detail.WRONG_TYPE, path)
            return None
        if not least <= number <= greatest:
            run.fault(Detail.OUT_OF_RANGE, path)
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
            run.fault(Detail.WRONG_TYPE, path)
            return None
        fitted = fit(number)
        if fitted is None:
            run.fault(Detail.OUT_OF_RANGE, path)
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
                run.fault(Detail.OUT_OF_RANGE, path)
                return None
            except ValueError:
                pass
        run.fault(Detail.WRONG_TYPE, path)
        return None

    return read


def read_instant(path: str, *, wrong: Detail = Detail.WRONG_TYPE, beyond: Detail = Detail.OUT_OF_RANGE) -> Read:
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
