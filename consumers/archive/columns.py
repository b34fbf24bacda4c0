"""The wide table of the lake: columns from the models of the contract, and rows from events.

Every field of every record is a column of the same name, null if an event lacks it; a name has the same type in all
records. Nested records are structs, arrays are lists, enums are strings, decimals have the schema's digits. A new field
of the contract is a new nullable column, so that old and new files can be read together by name. Parked deliveries
have a separate table.
"""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime
from functools import cache
from importlib.metadata import version
from itertools import chain
from operator import attrgetter
from typing import Any, Literal, get_args, get_origin

import pyarrow as pa  # noqa: TID251 - this is the wrapper
from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Bits, Characters, ContractRecord, Digits, plain
from bridge.errors import UnknownRecordError
from bridge.event import UNRECOGNIZED_TYPE
from consumers.api import Placed

IdDigest = Callable[[str], str]

# Columns with the id of a prescription, a request or a message, possibly (`correlation_id`). Digests instead of ids can
# still be joined on.
IDS = frozenset(
    {
        "_key", "correlation_id", "prescription_id", "prescriber_order_number", "rx_reference_number", "message_id",
        "relates_to_message_id", "request_id", "replacement_prescription_id", "superseded_by", "queue_id",
        "fill_id", "pharmacy_rx_number", "prior_authorization_number", "alert_id",
    }
)  # fmt: skip

_INSTANT = pa.timestamp("us", tz="UTC")
# Position of a row in the log; `_key` may be health information, such as a prescription id.
_PLACE: Mapping[str, tuple[pa.DataType, str]] = {
    "_topic": (pa.string(), ""),
    "_partition": (pa.int32(), ""),
    "_offset": (pa.int64(), ""),
    "_key": (pa.string(), "L"),
    "_ordinal": (pa.string(), ""),
    "_origin": (pa.string(), ""),
}
_SIMPLE: Mapping[object, pa.DataType] = {
    str: pa.string(),
    bool: pa.bool_(),
    date: pa.date32(),
    datetime: _INSTANT,
    AwareDatetime: _INSTANT,
    dict[str, str]: pa.map_(pa.string(), pa.string()),
}
_BITS: Mapping[int, pa.DataType] = {32: pa.int32(), 64: pa.int64()}


@cache
def schema_of(*, identifying: bool = True) -> pa.Schema:
    """Return the columns of events; unless `identifying`, without those of PHI class D, even nested ones."""
    found: dict[str, pa.Field] = {}
    for model in EVENT_MODELS.values():
        for each in _fields(model, identifying=identifying):
            before = found.setdefault(each.name, each)
            if before.type != each.type:
                raise TypeError(f"records have two types of {each.name}")
            if not before.metadata:  # the stricter of the classes in different records
                found[each.name] = each
    # The map of unknown members comes last.
    last = found.pop("extensions", None)
    return _with_place([*found.values(), *([] if last is None else [last])])


@cache
def unrecognized_schema() -> pa.Schema:
    """Return the columns of parked deliveries; the whole content of a body is class D."""
    return _with_place(
        [
            *(_field(name, pa.string(), "") for name in ("webhook_id", "source")),
            _field("received_at", _INSTANT, ""),
            *(_field(name, pa.string(), "") for name in ("reason", "detail", "field")),
            _field("headers", pa.map_(pa.string(), pa.string()), ""),
            _field("body", pa.binary(), "D"),
        ]
    )


def table_of(batch: Sequence[Placed], schema: pa.Schema, *, digest: IdDigest | None = None) -> pa.Table:
    """Return the rows of events, in order; with `digest`, columns in `IDS` have digests."""
    values: list[Mapping[str, Any]] = [event.value for event, _ in batch]
    place: dict[str, Sequence[object]] = {"_key": [event.key for event, _ in batch]}
    contexts = [context for _, context in batch]
    place |= {name: [*map(attrgetter(name[1:]), contexts)] for name in _PLACE if name not in place}
    rows: dict[str, list[int]] = {}
    for row, (event, _) in enumerate(batch):
        rows.setdefault(event.type, []).append(row)
    arrays = []
    for field in schema:
        name = field.name
        found: Sequence[Any] | None = place[name] if name in place else _column(name, values, rows)
        if found is None:
            arrays.append(pa.nulls(len(batch), field.type))
            continue
        if digest is not None and name in IDS:
            found = [None if each is None else digest(str(each)) for each in found]
        elif pa.types.is_map(field.type):
            found = [None if each is None else list(each.items()) for each in found]
        arrays.append(pa.array(found, field.type))
    return pa.Table.from_arrays(arrays, schema=schema)


def _column(name: str, values: Sequence[Mapping[str, Any]], rows: Mapping[str, list[int]]) -> Sequence[Any] | None:
    """Return the column of a name, or None if no type in the batch has it; `rows` are the row numbers by type.

    Most names belong to few types, and looking up an absent one costs as much.
    """
    having = [of_type for event_type, of_type in rows.items() if name in _names(event_type)]
    if len(having) == len(rows):
        return [value.get(name) for value in values]
    if not having:
        return None
    found: list[Any] = [None] * len(values)
    for row in chain.from_iterable(having):
        found[row] = values[row].get(name)
    return found


@cache
def _names(event_type: str) -> frozenset[str]:
    if event_type == UNRECOGNIZED_TYPE:
        return frozenset(unrecognized_schema().names)
    if event_type not in EVENT_MODELS:  # a foreign record with one of our schemas
        raise UnknownRecordError
    return frozenset(EVENT_MODELS[event_type].model_fields)


def _with_place(fields: Sequence[pa.Field]) -> pa.Schema:
    """Return a schema that begins with the position in the log, with the release as metadata."""
    schema = pa.schema([*(_field(name, kind, phi) for name, (kind, phi) in _PLACE.items()), *fields])
    fingerprint = hashlib.sha256(schema.serialize().to_pybytes()).hexdigest()
    return schema.with_metadata({"drx.release": version("drx-bridge"), "drx.schema_fingerprint": fingerprint})


def _fields(model: type[ContractRecord], *, identifying: bool) -> Iterable[pa.Field]:
    for name, info in model.model_fields.items():
        phi = _phi(info)
        if phi == "D" and not identifying:
            continue
        kind = _kind(plain(info), identifying=identifying)
        if kind is not None:
            yield _field(name, kind, phi)


def _kind(annotation: Any, *, identifying: bool) -> pa.DataType | None:
    """Return the type of a column; None for a record without remaining fields."""
    kind = _SIMPLE.get(annotation)
    inner = get_args(annotation)
    if kind is not None:
        return kind
    if get_origin(annotation) is Literal:
        return pa.string()
    if get_origin(annotation) is list:
        kind = _kind(inner[0], identifying=identifying)
        return None if kind is None else pa.list_(kind)
    if isinstance(annotation, type) and issubclass(annotation, ContractRecord):
        fields = list(_fields(annotation, identifying=identifying))
        return pa.struct(fields) if fields else None
    return _sized(inner)


def _sized(inner: Sequence[Any]) -> pa.DataType:
    for mark in inner:
        if isinstance(mark, Digits):
            return pa.decimal128(mark.precision, mark.scale)
        if isinstance(mark, Bits):
            return _BITS[mark.width]
        if isinstance(mark, Characters):
            return pa.string()
    raise TypeError(inner)


def _phi(info: FieldInfo) -> str:
    extra = info.json_schema_extra
    return str(extra.get("phi", "")) if isinstance(extra, dict) else ""


def _field(name: str, kind: pa.DataType, phi: str) -> pa.Field:
    return pa.field(name, kind, metadata={"phi": phi} if phi else None)
