"""A process of ours in which one place after another fails with health information in its exception.

`python -m tests.integration.phi_faults bridge serve` replaces every place by one that looks into the file that
`PHI_FAULT` names: while it stands there, it raises, with the marker of the file and its own arguments as texts.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

VARIABLE = "PHI_FAULT"

# What a delivery meets, from its first bytes to its answer; a function stands under the module that calls it.
PLACES = (
    "bridge.runtime.http:Connection.data_received",
    "bridge.runtime.http:Request.answer",
    "bridge.runtime.http:Connection.respond",
    "bridge.ingress.routes:read_heads",
    "bridge.ingress.routes:check_content",
    "bridge.ingress.schemes.standard_webhooks:StandardWebhooks.prove",
    "bridge.ingress.routes:trace_of",
    "bridge.ingress.routes:parse",
    "bridge.ingress.routes:safe_headers",
    "bridge.ingress.routes:Webhooks.take",
    "bridge.ingress.routes:Webhooks._route",
    "bridge.ingress.routes:Webhooks._admit",
    "bridge.ingress.routes:Webhooks._prove",
    "bridge.ingress.routes:Webhooks._map",
    "bridge.ingress.routes:Webhooks._publish",
    "bridge.ingress.routes:Webhooks._accept_taken",
    "bridge.ingress.routes:Webhooks._finish",
    "bridge.ingress.routes:Webhooks._take_or_park",
    "bridge.ingress.routes:Webhooks._accept",
    "bridge.ingress.routes:Webhooks._park",
    "bridge.ingress.routes:Webhooks._refuse",
    "bridge.ingress.routes:Admission.enter",
    "bridge.ingress.routes:Admission.leave",
    "bridge.ingress.metrics:Observations.verified",
    "bridge.ingress.metrics:Observations.taken",
    "bridge.ingress.metrics:Observations.parked",
    "bridge.ingress.metrics:Observations.unproved",
    "bridge.ingress.metrics:Observations.answered",
    "bridge.ingress.profiles.drx_standard:_read_envelope",
    "bridge.ingress.profiles.drx_standard:_compare_id",
    "bridge.ingress.deduplicator:Deduplicator.take_new",
    "bridge.ingress.deduplicator:Deduplicator.take",
    "bridge.ingress.deduplicator:Deduplicator.park",
    "bridge.ingress.deduplicator:Deduplicator._publish",
    "bridge.known.known_ids:KnownIds.begin_new",
    "bridge.known.known_ids:KnownIds.begin",
    "bridge.kafka.publisher:Publisher.publish",
    "bridge.kafka.publisher:Publisher._event",
    "bridge.kafka.publisher:Publisher._unrecognized",
    "bridge.kafka.publisher:partition",
    "bridge.kafka.publisher:event_record",
    "bridge.kafka.publisher:unrecognized_record",
    "bridge.avro.codec:Codec.encode",
    "bridge.kafka.partition_writer:PartitionWriters.enqueue",
    "bridge.kafka.partition_writer:PartitionWriter._take",
    "bridge.kafka.partition_writer:PartitionWriter._write",
    "bridge.kafka.producer:KafkaProducer.write",
    "bridge.kafka.producer:Generation.write",
)

# What the dialect of a vendor adds, by the profile that meets it.
VENDOR_PLACES: Mapping[str, Sequence[str]] = {
    "digitalrx_pharmacy": (
        "bridge.ingress.schemes.shared:SecretHeader.prove",
        "bridge.ingress.profiles.mapped:Run.choose",
        "bridge.ingress.profiles.mapped:Run._places",
        "bridge.ingress.profiles.mapped:Run._read_data",
        "bridge.ingress.profiles.mapped:compose",
        "bridge.ingress.routes:id_of_body",
        "bridge.ingress.routes:keys_by_delivery",
        "bridge.known.delivery_ids:NewestBodies.find",
        "bridge.known.delivery_ids:NewestBodies.note",
    ),
    "dosespot_push": (
        "bridge.ingress.profiles.mapped:Run._leading",
        "bridge.ingress.profiles.mapped:Run._claims",
        "bridge.ingress.profiles.assemble:_read_field",
        "bridge.ingress.profiles.assemble:_end",
        "bridge.ingress.profiles.assemble:unsaid",
    ),
    "photon_cloudevents": (
        "bridge.ingress.schemes.signed_text:SignedHeader.prove",
        "bridge.ingress.schemes.body_hmac:BodyHmac.prover",
        "bridge.ingress.profiles.mapped:Run._elements",
        "bridge.ingress.profiles.mapped:Run._time",
    ),
    "mapped": (
        "bridge.ingress.profiles.mapped:Run.read_tables",
        "bridge.ingress.profiles.mapped:Run._value",
        "bridge.ingress.profiles.mapped:Run._key",
        "bridge.ingress.profiles.mapped:Run.drop",
        "bridge.ingress.profiles.mapped_functions:text_of_id",
        "bridge.ingress.profiles.mapped_functions:Scope.evaluate",
    ),
}
ALL_PLACES = (*PLACES, *(place for places in VENDOR_PLACES.values() for place in places))


def failures(marker: str, text: str) -> list[Exception]:
    """Exceptions as Python and libraries raise them, each with values in another corner."""
    return [
        ValueError(f"invalid literal: {marker}", text),
        KeyError(marker),
        json.JSONDecodeError(f"Expecting value {marker}", text + marker, 0),
        UnicodeDecodeError("utf-8", marker.encode(), 0, 1, marker),
        TypeError(f"cannot convert {marker}"),
        OSError(5, marker, f"/tmp/{marker}"),  # noqa: S108 - no file of that name is made
        RuntimeError(text),
        AssertionError({marker: text}),
    ]


def fail(place: str, arguments: object) -> None:
    path = Path(os.environ[VARIABLE])
    wanted, _, marker = path.read_text().partition(" ")
    if wanted != place:
        return
    with path.with_suffix(".hits").open("a") as hits:
        hits.write(f"{place}\n")
    found = failures(marker, repr(arguments))
    exc = found[ALL_PLACES.index(place) % len(found)]
    exc.add_note(f"while handling {marker}")
    raise exc from ValueError(marker)


def sabotage(place: str) -> None:
    module, _, path = place.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, failing(place, getattr(owner, name)))


def failing(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(function)
    def call(*arguments: Any, **named: Any) -> Any:
        fail(place, (arguments, named))
        return function(*arguments, **named)

    @wraps(function)
    async def call_later(*arguments: Any, **named: Any) -> Any:
        fail(place, (arguments, named))
        return await function(*arguments, **named)

    return call_later if iscoroutinefunction(function) else call


def main() -> None:
    program = sys.argv.pop(1)
    for place in ALL_PLACES:
        sabotage(place)
    importlib.import_module(f"{program}.cli").main()


if __name__ == "__main__":
    main()
