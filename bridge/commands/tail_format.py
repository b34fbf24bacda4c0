"""Format records as JSON lines or for people."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any

import orjson
from rich.text import Text

from bridge import event
from bridge.event import instant
from bridge.kafka.consumed_record import ConsumedRecord
from bridge.registry.masker import NOTHING, PEOPLE_MASK
from bridge.runtime.screen import printable


@dataclass(frozen=True, slots=True)
class Shown:
    """A record of a topic, decoded or not.

    `value` is None for a tombstone and for a record that cannot be decoded. For the latter, `error` is a stable code.
    """

    at: ConsumedRecord
    record: str = ""  # full name of the record in Avro
    value: Mapping[str, Any] | None = field(default=None, repr=False)
    error: str = ""

    @property
    def time(self) -> str | None:
        """Timestamp of the record; None if it is out of range, since other producers may write any number."""
        try:
            return instant(datetime.fromtimestamp(self.at.timestamp_ms / 1000, UTC))
        except (ValueError, OverflowError):
            return None

    def document(self) -> dict[str, Any]:
        """Return the record as JSON types; it has the member `error` only if the record cannot be decoded."""
        shown = {
            "topic": self.at.topic,
            "partition": self.at.partition,
            "offset": self.at.offset,
            "timestamp": self.time,
            "key": None if self.at.key is None else text(self.at.key),
            "record": self.record or None,
            "headers": {name: text(content) for name, content in self.at.headers},
            "value": None if self.value is None else plain(self.value) | self._body_text(),
        }
        return shown | {"error": self.error} if self.error else shown

    def _body_text(self) -> dict[str, str]:
        body = (self.value or {}).get("body")
        return {"body_text": text(body)} if isinstance(body, bytes) else {}

    def lines(self, *, as_tree: bool = False) -> Text:
        """Return a line with position and type, then non-empty fields: in one line, or a line each if `as_tree`."""
        title = Text().append(self.time or "-", "dim")
        title.append(f"  {self.at.topic}/{self.at.partition}@{self.at.offset}", "cyan")
        title.append(f"  {'-' if self.at.key is None else printable(text(self.at.key))}", "bold")
        if self.error:
            return title.append(f"  cannot be decoded: {self.error}", "red")
        if self.value is None:
            return title.append("  tombstone", "yellow")
        title.append(f"  {self.record.rpartition('.')[2]}\n", "bold green")
        if as_tree:
            return title.append_text(Text("\n").join(fields_tree(self.value, indent=4)))
        return title.append("   ").append_text(_fields(self.value))


def plain(value: Any) -> Any:
    """Turn a decoded value into JSON types: instants in UTC with `Z`, decimals as strings, bytes in base64."""
    return orjson.loads(orjson.dumps(value, default=_without_form, option=orjson.OPT_PASSTHROUGH_DATETIME))


def _without_form(value: Any) -> Any:
    if isinstance(value, datetime):
        return instant(value)
    return value.isoformat() if isinstance(value, date | time) else event.plain(value)


def text(content: bytes) -> str:
    """Decode bytes that should be UTF-8; invalid bytes are shown as escapes."""
    return content.decode("utf-8", "backslashreplace")


def fields_tree(value: Mapping[str, Any], *, indent: int) -> Iterator[Text]:
    """Yield a line for each field that is not empty; nested fields are indented below it."""
    margin = " " * indent
    for name, inner in value.items():
        if inner in (*NOTHING, ""):
            continue
        line = Text().append(f"{margin}{printable(name)}", "dim")
        if isinstance(inner, Mapping):
            yield line
            yield from fields_tree(inner, indent=indent + 2)
        elif isinstance(inner, list) and any(isinstance(each, Mapping) for each in inner):
            yield line
            for each in inner:
                rows = list(fields_tree(each, indent=indent + 4)) if isinstance(each, Mapping) else [_value(each)]
                for number, row in enumerate(rows):
                    yield Text().append(f"{margin}  - ", "dim").append_text(row[indent + 4 :]) if number == 0 else row
        else:
            yield line.append(" ").append_text(_value(inner))


def _fields(value: Mapping[str, Any]) -> Text:
    line = Text()
    for name, inner in value.items():
        if inner not in (*NOTHING, ""):
            shown = _value(inner)
            if isinstance(inner, str) and not {" ", "=", '"'}.isdisjoint(inner):
                shown = Text(f'"{shown.plain}"')  # quoted, so that its end is visible
            line.append(f" {name}=", "dim").append_text(shown)
    return line


def _value(value: Any) -> Text:
    if isinstance(value, Mapping):
        return Text("{").append_text(_fields(value)).append(" }")
    if isinstance(value, list):
        return Text("[").append_text(Text(", ").join(_value(inner) for inner in value)).append("]")
    if value == PEOPLE_MASK:
        return Text(PEOPLE_MASK, "magenta")
    return Text(printable(str(plain(value))))
