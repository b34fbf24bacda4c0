"""`hl7v2` from topic to settled records, against a receiver on loopback that acknowledges at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from tests.bench.consuming import servers
from tests.bench.sending import TOPICS, Sending
from tests.faults.away import HOST
from tests.faults.messaging import Receiver

# Nearly every record is a message.
SENDING = Sending(
    "hl7v2",
    "a receiver on loopback",
    "connections",
    records={1: 6_000, 8: 15_000},
    goals={1: 400, 8: 1_500},
)
table = SENDING.table


def run(console: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure all; two minutes."""
    with servers(TOPICS) as place:
        return SENDING.run(console, place, _settings, quick=quick)


@contextmanager
def _settings(connections: int) -> Iterator[dict[str, str]]:
    with Receiver() as receiver:
        yield {
            "HL7V2__HOST": HOST,
            "HL7V2__PORT": str(receiver.port),
            "HL7V2__ALLOW_PLAINTEXT": "true",
            "HL7V2__CONNECTIONS": str(connections),
            "POSTGRES__POOL_SIZE": str(connections + 8),
        }
