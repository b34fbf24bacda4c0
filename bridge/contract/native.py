"""Convert a record of the contract to a native body: the inverse of `drx_standard.map`.

For an event of a native source, mapping the body gives the same record again. Unknown values of enums are put back into
their fields, and members that the contract does not define are put back to where the sender had them. The `extensions`
of a vendor's event have pointers into the vendor's body. They are put back only if all of them point to unused members
of a native body. Otherwise the whole map becomes the member `extensions` of the body, so that a vendor's member is not
mistaken for a field of the contract with the same name.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple, cast, get_args, get_origin

import orjson
from pydantic.fields import FieldInfo

from bridge.contract.envelope import EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.contract.fields import UNKNOWN, ContractRecord, kept_words, plain, raw_name, words_of
from bridge.errors import UnknownRecordError

# Field of the record -> member of the body, in the order of docs/contract.md §3.
_ENVELOPE: Mapping[str, str] = MappingProxyType(
    {
        "event_id": "id",
        "event_type": "type",
        "contract_version": "version",
        "occurred_at": "timestamp",
        "origin_source": "source",
        "environment": "environment",
        "account_id": "account_id",
        "sequence": "sequence",
        "correlation_id": "correlation_id",
    }
)


class _Field(NamedTuple):
    words: bool  # an enum, or an array of enums, with unknown values in the field `raw_name`
    inner: "_Shape | None"  # shape of the record in it, or of each record of its array
    phi: bool  # directly identifying or health information (classes D and L)


_Shape = Mapping[str, _Field]


def native(record: Mapping[str, object], *, phi: bool = True) -> dict[str, Any]:
    """Return the body of a record (`Event.value`), for `orjson.dumps`.

    Without `phi`, fields of class D or L are left out, except the one that the record's key comes from, and
    `correlation_id`, which may be a request id (L). Raises `UnknownRecordError` if the record is not of an event type.
    """
    event_type = str(record["event_type"])
    shape = _shape_of(event_type)
    if event_type == OTHER_REPORTED and record["prescription_id"] is None:
        # The sender's value of this member is not a prescription id, and is kept in the extensions.
        shape = {name: field for name, field in shape.items() if name != "prescription_id"}
    names = [name for name in _ENVELOPE if record[name] is not None and (phi or name != "correlation_id")]
    body = {_ENVELOPE[name]: _plain(record[name]) for name in names}
    content = body["data"] = _members(record, shape, phi=phi)
    if event_type == OTHER_REPORTED:
        # A vendor's type that equals one of ours would require fields that the body lacks.
        holder, name = (content, "reported_type") if record["reported_type"] in EVENT_MODELS else (body, "type")
        holder[name] = record["reported_type"]
    if phi:
        _put_back(cast("Mapping[str, str]", record["extensions"]), body, shape)
    elif "prescription_id" in shape:
        # A request without a matching prescription has its own id as the key.
        name = "request_id" if record["prescription_id"] is None else "prescription_id"
        if record.get(name) is not None:
            content[name] = record[name]
    return body


def native_json(record: Mapping[str, object], *, phi: bool = True) -> bytes:
    """Return `native` as JSON text, with health information if `phi`; equal records give equal bytes."""
    return orjson.dumps(native(record, phi=phi), option=orjson.OPT_SORT_KEYS)


@cache
def _shape_of(event_type: str) -> _Shape:
    model = EVENT_MODELS.get(event_type)
    if model is None:
        raise UnknownRecordError
    without = set(EventRecord.model_fields) | {"extensions", "reported_type"}
    if issubclass(model, PrescriptionRecord):
        without.discard("prescription_id")
    return _shape(model, without)


def _shape(model: type[ContractRecord], without: Iterable[str] = ()) -> _Shape:
    left_out = kept_words(model).union(without)
    return {name: _field(info) for name, info in model.model_fields.items() if name not in left_out}


def _field(info: FieldInfo) -> _Field:
    kind: Any = plain(info)
    words = bool(words_of(kind))
    if get_origin(kind) is list:
        (kind,) = get_args(kind)
    extra = info.json_schema_extra
    return _Field(
        words=words,
        inner=_shape(kind) if isinstance(kind, type) and issubclass(kind, ContractRecord) else None,
        phi=isinstance(extra, dict) and extra.get("phi") in {"D", "L"},
    )


def _members(record: Mapping[str, Any], shape: _Shape, *, phi: bool) -> dict[str, Any]:
    members: dict[str, Any] = {}
    for name, field in shape.items():
        value = record[name]
        if value is None or (field.phi and not phi):
            continue
        if field.words:
            members[name] = _words(value, record[raw_name(name)])
        elif field.inner is None:
            members[name] = _plain(value)
        elif isinstance(value, list):
            members[name] = [_members(each, field.inner, phi=phi) for each in value]
        else:
            members[name] = _members(value, field.inner, phi=phi)
    return members


def _words(value: str | list[str], raw: str | list[str] | None) -> object:
    """Return the source's values: `UNKNOWN` replaced by the value of its raw field, in order for an array."""
    if isinstance(value, str):
        return value if value != UNKNOWN or raw is None else raw
    unlisted = iter(raw or ())
    return [next(unlisted, UNKNOWN) if word == UNKNOWN else word for word in value]


def _plain(value: Any) -> Any:
    match value:
        case Decimal():
            return f"{value:f}"  # never with an exponent
        case datetime():
            return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat()}Z"
        case date():
            return value.isoformat()
        case list():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            return value


def _put_back(extensions: Mapping[str, str], body: dict[str, Any], shape: _Shape) -> None:
    envelope = {**dict.fromkeys(_ENVELOPE.values()), "data": shape}
    places = [(_holder(pointer, body, envelope), pointer) for pointer in extensions]
    if all(holder is not None for holder, _ in places):
        for holder, pointer in places:
            cast("dict[str, Any]", holder)[_unescaped(pointer.rpartition("/")[2])] = orjson.Fragment(
                extensions[pointer]
            )
    else:
        body["extensions"] = {pointer: orjson.Fragment(text) for pointer, text in extensions.items()}


def _holder(pointer: str, body: dict[str, Any], envelope: Mapping[str, _Shape | None]) -> dict[str, Any] | None:
    """Return the object into which the member at `pointer` is put back; None if that member is already in use."""
    if not pointer.startswith("/"):
        return None
    node: Any = body
    known: Mapping[str, Any] | None = envelope
    *way, last = map(_unescaped, pointer.split("/")[1:])
    for step in way:
        if isinstance(node, list):
            if not step.isdecimal() or int(step) >= len(node):
                return None
            node = node[int(step)]
            continue
        inner = known.get(step) if known is not None else None
        known = inner.inner if isinstance(inner, _Field) else inner
        if not isinstance(node, dict) or known is None or step not in node:
            return None
        node = node[step]
    return node if isinstance(node, dict) and known is not None and last not in known else None


def _unescaped(step: str) -> str:
    """Unescape a step of a JSON pointer (RFC 6901, section 4)."""
    return step.replace("~1", "/").replace("~0", "~")
