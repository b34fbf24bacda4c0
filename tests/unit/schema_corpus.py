"""Values of any of the project's schemas for property tests, and schemas of single fields."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

from hypothesis import strategies as st

DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}
MICROS = {"type": "long", "logicalType": "timestamp-micros"}
DATE = {"type": "int", "logicalType": "date"}
ENUM = {"type": "enum", "name": "E", "symbols": ["UNKNOWN", "a"]}

# Avro has a larger range than Python's datetime.
_INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001 -- bounds are naive by the interface
_DAYS = st.dates(date(1, 1, 1), date(9999, 12, 31))
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=40)

_SCALARS: dict[tuple[str, str | None], st.SearchStrategy[Any]] = {
    ("null", None): st.none(),
    ("string", None): _TEXTS,
    ("bytes", None): st.binary(max_size=300),
    ("boolean", None): st.booleans(),
    ("int", None): st.integers(-(2**31), 2**31 - 1),
    ("long", None): st.integers(-(2**63), 2**63 - 1),
    ("long", "timestamp-micros"): _INSTANTS,
    ("int", "date"): _DAYS,
}


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Return every value that an expanded schema allows."""
    if isinstance(schema, list):
        return st.one_of([values(branch) for branch in schema])
    if isinstance(schema, str):
        schema = {"type": schema}
    found: st.SearchStrategy[Any]
    match schema["type"], schema.get("logicalType"):
        case "record", _:
            found = st.fixed_dictionaries({each["name"]: values(each["type"]) for each in schema["fields"]})
        case "array", _:
            found = st.lists(values(schema["items"]), max_size=3)
        case "map", _:
            found = st.dictionaries(_TEXTS, values(schema["values"]), max_size=3)
        case "enum", _:
            found = st.sampled_from(schema["symbols"])
        case "bytes", "decimal":
            bound = 10 ** schema["precision"] - 1
            found = st.integers(-bound, bound).map(lambda number: Decimal(number).scaleb(-schema["scale"]))
        case kind, logical:
            found = _SCALARS[kind, logical]
    return found
