"""A process of the project in which one function after another fails with health information in its exception.

`python -m tests.integration.phi_faults bridge serve` replaces every place by one that looks into the file that
`PHI_FAULT` names: while it stands there, it raises, with the marker of the file and its own arguments as texts.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from pathlib import Path
from typing import Any

VARIABLE = "PHI_FAULT"


def _of(owner: str, names: str) -> tuple[str, ...]:
    return tuple(f"{owner}{name}" for name in names.split())


# Functions that a delivery passes, from its first bytes to its response, by the module that calls them.
PLACES = (
    *_of("bridge.runtime.http_server:StrictParser.", "feed_data"),
    *_of("bridge.runtime.http_server:ClientConnection.", "data_received parsed"),
    *_of("bridge.runtime.http_server:", "Request.respond Response.prepare"),
    *_of("bridge.ingress.webhooks:", "read_headers check_content"),
    *_of("bridge.proof.schemes.standard_webhooks:StandardWebhooks.", "verify"),
    *_of("bridge.ingress.webhooks:", "trace_of read_body park_delivery"),
    *_of("bridge.ingress.parking:", "safe_headers"),
    *_of("bridge.ingress.webhooks:Webhooks.", "take _route _admit _verify _map _publish _accept_taken _finish"),
    *_of("bridge.ingress.webhooks:Webhooks.", "_take_or_park"),
    *_of("bridge.ingress.responses:Responses.", "accepted parked refused"),
    *_of("bridge.ingress.delivery_limits:Admission.", "enter leave"),
    *_of("bridge.ingress.responses:Observations.", "verified taken parked unverified answered"),
    *_of("bridge.mapping.drx_standard:", "_read_envelope _compare_id"),
    *_of("bridge.ingress.deduplicator:Deduplicator.", "publish_new publish park _publish_fresh"),
    *_of("bridge.known.known_ids:KnownIds.", "begin_new begin"),
    *_of("bridge.kafka.publisher:Publisher.", "publish _event _unrecognized"),
    *_of("bridge.kafka.publisher:", "partition event_record unrecognized_record"),
    *_of("bridge.avro.codec:Codec.", "encode"),
    *_of("bridge.kafka.partition_writer:PartitionWriters.", "enqueue"),
    *_of("bridge.kafka.partition_writer:PartitionWriter.", "_take _write"),
    *_of("bridge.kafka.producer:KafkaProducer.", "write"),
    *_of("bridge.kafka.producer:Generation.", "write"),
)


def failures(marker: str, text: str) -> list[Exception]:
    """Exceptions as Python and libraries raise them, each with values in another attribute."""
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
    exc = found[PLACES.index(place) % len(found)]
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
    for place in PLACES:
        sabotage(place)
    importlib.import_module(f"{program}.cli").main()


if __name__ == "__main__":
    main()
