from dataclasses import dataclass
from functools import cache
from typing import Any

from bridge.mapping.profile import Mapped
from bridge.registry.loader import bundled
from tests.builders import codec
from tests.unit.profile_documents import SAMPLES, map_body


@dataclass(frozen=True, slots=True)
class Sample:
    name: str
    record: str
    value: dict[str, Any]
    payload: bytes


@cache
def samples() -> list[Sample]:
    encode = codec().encode
    found = []
    for path in (*sorted(SAMPLES.glob("native/*.json")), SAMPLES / "edge" / "02_unknown_type.json"):
        outcome = map_body(path.read_bytes())
        assert isinstance(outcome, Mapped), path.name
        for event in outcome.events:
            record = "drx.v1." + "".join(word.capitalize() for word in event.type.replace(".", "_").split("_"))
            value = dict(event.value)
            found.append(Sample(path.name, record, value, encode(record, value)))
    assert {sample.record for sample in found} == set(bundled().schemas()) - {"drx.v1.UnrecognizedDelivery"}
    return found
