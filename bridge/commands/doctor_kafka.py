"""The doctor's look at Kafka: do the brokers answer, and are the topics what the contract says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from bridge.app import connection
from bridge.commands.doctor_checks import Finding
from bridge.errors import BridgeError
from bridge.kafka.connection import reachable
from bridge.settings import Kafka


async def check_kafka(kafka: Kafka, *, topics: Sequence[str]) -> AsyncIterator[Finding]:
    """Look at the brokers first, since without one nothing can be said about topics."""
    reach = connection(kafka)
    try:
        servers = reach.servers
        reach.options()
    except BridgeError as exc:
        yield Finding("kafka", "failed", str(exc), "mend the setting it names")
        return
    alive = await reachable(servers)
    if not alive:
        yield Finding(
            "kafka",
            "failed",
            f"no broker answers at {reach.bootstrap_servers}",
            "start it, or set BRIDGE_KAFKA__BOOTSTRAP_SERVERS",
        )
        return
    if len(alive) < len(servers):
        says = f"only {', '.join(sorted(alive))} of {len(servers)} bootstrap servers answer"
        yield Finding("kafka", "warning", says, "start the others, or take them out of BRIDGE_KAFKA__BOOTSTRAP_SERVERS")
    else:
        yield Finding(
            "kafka", "ok", f"{len(alive)} of {len(servers)} bootstrap servers answer, {kafka.security_protocol}"
        )
