"""Documents with a unique marker in every field that may contain health information."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from itertools import count
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AwareDatetime
from pydantic.fields import FieldInfo

from bridge.contract.envelope import EventRecord, PrescriptionRecord
from bridge.contract.events import EVENT_MODELS
from bridge.contract.fields import Bits, ContractRecord, Digits

# Fields of a record that no member of `data` fills.
_LEADING = frozenset(EventRecord.model_fields) | {"extensions"}
# Long before any time in a log, a metric or a response.
_FIRST_DAY = date(1888, 1, 1)


@dataclass(frozen=True, slots=True)
class Marked:
    """A body as a JSON object, and every marker in it."""

    document: dict[str, Any]
    key: str  # the marker that may be the record's key, or empty
    markers: Mapping[str, str]  # path of the field to the string that must not appear outside the record's value


class Marker:
    def __init__(self) -> None:
        self._numbers = count(1)

    def document(self, event_type: str, *, event_id: str) -> Marked:
        """Make an event with a marker in every D and L field, in raw values of enums and in unknown members."""
        markers: dict[str, str] = {}
        model = EVENT_MODELS[event_type]
        content = self._object(model, "/data", markers, phi=False, without=_LEADING)
        key = ""
        if issubclass(model, PrescriptionRecord):
            key = content["prescription_id"] = markers["/data/prescription_id"] = self.text()
        document = {
            "id": event_id,
            "type": event_type,
            "version": "1",
            "timestamp": "2026-09-14T15:10:03Z",
            "environment": "sandbox",
            "account_id": "acct_1",
            "data": content,
            **self._unknown("", markers),
        }
        return Marked(document, key, markers)

    def text(self) -> str:
        return f"PHI{next(self._numbers):06d}IHP"

    def _object(
        self,
        model: type[ContractRecord],
        path: str,
        markers: dict[str, str],
        *,
        phi: bool,
        without: frozenset[str] = frozenset(),
    ) -> dict[str, Any]:
        made = self._unknown(path, markers)
        for name, member in model.model_fields.items():
            if name not in without and name.removeprefix("raw_") not in model.model_fields.keys() - {name}:
                made[name] = self._value(plain(member), f"{path}/{name}", markers, phi=phi or is_phi(member))
        return made

    def _unknown(self, path: str, markers: dict[str, str]) -> dict[str, str]:
        """Make a member whose name is a marker, too: unknown members may be anything."""
        name, value = self.text(), self.text()
        markers |= {f"{path}/~name": name, f"{path}/~value": value}
        return {name: value}

    def _value(self, kind: Any, path: str, markers: dict[str, str], *, phi: bool) -> Any:
        origin, inner = get_origin(kind), get_args(kind)
        if isinstance(kind, type) and issubclass(kind, ContractRecord):
            return self._object(kind, path, markers, phi=phi)
        if origin is list:
            return [self._value(inner[0], f"{path}/0", markers, phi=phi)]
        if kind is bool:
            return True
        if origin is dict:
            return {"a": "b"}
        if not phi:
            return plain_value(kind)
        value: Any = self._scalar(kind)
        markers[path] = str(value)
        return value

    def _scalar(self, kind: Any) -> Any:
        number = next(self._numbers)
        origin, inner = get_origin(kind), get_args(kind)
        if kind is date:
            return (_FIRST_DAY + timedelta(days=number)).isoformat()
        if kind is AwareDatetime:
            moment = datetime(1888, 1, 1, tzinfo=UTC) + timedelta(hours=number, microseconds=number)
            return moment.isoformat(timespec="microseconds").removesuffix("+00:00")
        if origin is Annotated and isinstance(inner[1], Bits):
            return 1_600_000_000 + number
        if origin is Annotated and isinstance(inner[1], Digits):
            return f"{7 * 10 ** (inner[1].precision - inner[1].scale - 1) + number}.{'1' * inner[1].scale}"
        return self.text()  # a word outside an enum is kept beside it


@dataclass
class Seen:
    markers: set[str] = field(default_factory=set)
    seen: dict[str, str] = field(default_factory=dict)
    marker: Marker = field(default_factory=Marker)

    def document(self, event_id: str, *, event_type: str = "prescription.created") -> Marked:
        made = self.marker.document(event_type, event_id=event_id)
        self.markers |= set(made.markers.values())
        return made

    def text(self) -> str:
        text = self.marker.text()
        self.markers.add(text)
        return text

    def of(self, text: str) -> set[str]:
        return {each for each in self.markers if each in text}

    def leaks(self) -> dict[str, set[str]]:
        return {place: found for place, text in self.seen.items() if (found := self.of(text))}


def plain(field: FieldInfo) -> Any:
    """Return a field's type without `| None`, with its width or digits if it has them."""
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    if get_origin(annotation) in (Union, UnionType):
        (annotation,) = (one for one in get_args(annotation) if one is not type(None))
    return annotation


def is_phi(field: FieldInfo) -> bool:
    extra = field.json_schema_extra
    return isinstance(extra, dict) and extra.get("phi") in {"D", "L"}


def plain_value(kind: Any) -> Any:
    if get_origin(kind) is Literal:
        return get_args(kind)[0]
    if get_origin(kind) is Annotated:
        return 1
    return "plain"


def texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield str(name)
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, date | datetime):
        yield value.isoformat() if not isinstance(value, datetime) else value.isoformat(timespec="microseconds")
    elif isinstance(value, Decimal | int | str):
        yield str(value)
