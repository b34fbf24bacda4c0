"""The vectors of `tests/data/schemes`: deliveries, some of them published, and the expected result of each scheme."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bridge.errors import DeliveryRefusedError
from bridge.proof.scheme import KeySlot, Raw, Scheme
from bridge.proof.schemes.presets import configure

FOLDER = Path(__file__).parent / "data" / "schemes"
VERIFIED = "verified"


class Vector(NamedTuple):
    """One delivery, ready for verification; `given` is its entry in the file."""

    name: str
    given: dict[str, Any]
    scheme: Scheme
    slots: tuple[KeySlot, ...]
    raw: Raw
    now: float
    code: str


def vectors(*files: str) -> list[Vector]:
    paths = [FOLDER / f"{name}.json" for name in files] if files else sorted(FOLDER.glob("*.json"))
    return [_vector(path.stem, given) for path in paths for given in json.loads(path.read_text())]


def verdict(scheme: Scheme, raw: Raw, slots: Sequence[KeySlot], now: float) -> str:
    """Return `verified`, or the code of the refusal; any other exception is a bug."""
    try:
        scheme.verify(raw, slots, now)
    except DeliveryRefusedError as exc:
        return exc.code
    return VERIFIED


def slots_of(scheme: Scheme, given: Sequence[dict[str, Any]]) -> tuple[KeySlot, ...]:
    return tuple(
        KeySlot(
            each["name"],
            scheme.parse_keys([each["line"], *(each.get("further", {})[name] for name in scheme.further)]),
            not_before=each.get("not_before", -math.inf),
            accept_until=each.get("accept_until", math.inf),
        )
        for each in given
    )


def _vector(file: str, given: dict[str, Any]) -> Vector:
    scheme = configure(given["scheme"], given["parameters"], tolerance_s=given.get("tolerance_s", 300))
    body = bytes.fromhex(given["body_hex"]) if "body_hex" in given else given["body"].encode()
    heads = {name.encode(): value.encode("latin-1") for name, value in given["headers"].items()}
    raw = Raw(heads, body, given.get("query", "").encode(), given.get("peer", ""))
    return Vector(
        f"{file}-{given['name']}", given, scheme, slots_of(scheme, given["slots"]), raw, given["now"], given["code"]
    )
