"""Compile a record of the contract into readers, so that mapping a document is one walk over its members."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date
from types import MappingProxyType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.contract.fields import Bits, Digits, Record
from bridge.ingress.profiles.fields import (
    Put,
    Read,
    put_read,
    put_text,
    put_word,
    read_day,
    read_decimal,
    read_id,
    read_instant,
    read_integer,
    read_text,
    read_truth,
)
from bridge.ingress.profiles.structures import Members, put_words, read_array, read_map, read_record

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
    """Compile the object at `path` that fills `model`.

    Args:
        model: Record of the contract.
        path: From the root of the body, array indexes as `*`.
        without: Fields that no member fills; those for the words outside an enum are left out anyway.
    """
    fields = model.model_fields
    kept_words = {f"raw_{name}" for name, field in fields.items() if _words(_plain(field))}
    names = [name for name in fields if name not in without | kept_words]
    return Members(
        path,
        puts={name: _put(name, _plain(fields[name]), f"{path}/{name}") for name in names},
        required=[name for name in names if fields[name].is_required()],
    )


def _plain(field: FieldInfo) -> object:
    """Give the field's type without `| None`, and with its width or digits if it has them."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation


def _words(plain: object) -> tuple[str, ...]:
    """Give the words of an enum, or of an array of enums."""
    if get_origin(plain) is list:
        return _words(get_args(plain)[0])
    return get_args(plain) if get_origin(plain) is Literal else ()


def _put(name: str, plain: object, path: str) -> Put:
    words = _words(plain)
    if words:
        return put_words(name, path, words) if get_origin(plain) is list else put_word(name, path, words)
    if plain is str and not _may_be_integer(name):
        return put_text(name, path)
    return put_read(name, _read(name, plain, path))


def _may_be_integer(name: str) -> bool:
    """Tell the strings that docs/contract.md §3 lets a source send as a JSON integer."""
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


def _read_sized(mark: object, path: str) -> Read:
    if isinstance(mark, Bits):
        return read_integer(path, mark)
    if isinstance(mark, Digits):
        return read_decimal(path, mark)
    raise TypeError(path)
