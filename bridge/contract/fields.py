"""Annotations of contract fields beyond the Python type: PHI class, width, digits, length."""

from collections.abc import Iterable
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema, core_schema

T = TypeVar("T")

# Enum symbol for an unknown value; the value itself is kept in `raw_<field>`.
UNKNOWN = "UNKNOWN"

# PHI classes (docs/contract.md §7); a field without one holds provider data, or no personal data.
Direct = Annotated[T, Field(json_schema_extra={"phi": "D"})]
Linked = Annotated[T, Field(json_schema_extra={"phi": "L"})]


@dataclass(frozen=True, slots=True)
class Bits:
    """Width of a signed integer: 32 is Avro's `int`, 64 its `long`."""

    width: int

    @property
    def least(self) -> int:
        """The smallest integer that fits."""
        return -(1 << self.width - 1)

    @property
    def greatest(self) -> int:
        """The greatest integer that fits."""
        return (1 << self.width - 1) - 1

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make pydantic check the bounds."""
        return core_schema.int_schema(ge=self.least, le=self.greatest)


@dataclass(frozen=True, slots=True)
class Digits:
    """Size of a fixed-point decimal, as in Avro's logical type."""

    precision: int  # digits in all
    scale: int  # digits after the point

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make pydantic check the size."""
        return core_schema.decimal_schema(max_digits=self.precision, decimal_places=self.scale)


@dataclass(frozen=True, slots=True)
class Characters:
    """Bound on the length of a string."""

    most: int

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Make pydantic check the length."""
        return core_schema.str_schema(max_length=self.most)


class ContractRecord(BaseModel):
    """A record of the contract: closed, immutable, without coercion, and with a `repr` that shows no values."""

    # Validators are built at first use: a process that never makes a model starts 0.1 s sooner.
    model_config = ConfigDict(defer_build=True, extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show no field: a record in a log line or an assertion must not show a patient."""
        return ()


def plain(field: FieldInfo) -> object:
    """Return the type of a field without `| None`, but with its width, digits or length."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation


def raw_name(name: str) -> str:
    """Return the name of the field that keeps the source's value if the enum `name` does not have it."""
    return f"raw_{name}"


def kept_words(model: type[ContractRecord]) -> frozenset[str]:
    """Return the fields of a record that keep unknown values of its enums."""
    return frozenset(raw_name(name) for name, info in model.model_fields.items() if words_of(plain(info)))


def words_of(plain: object) -> tuple[str, ...]:
    """Return the symbols of an enum, or of an array of enums."""
    if get_origin(plain) is list:
        return words_of(get_args(plain)[0])
    return get_args(plain) if get_origin(plain) is Literal else ()
