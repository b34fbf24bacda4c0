"""The doctor's checks of Kafka: brokers answer, and topics match the contract."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from bridge.commands.topics import ADVICE
from bridge.errors import BridgeError
from bridge.kafka.admin import Deviation, TopicSpec, open_admin, topic_specs
from bridge.kafka.connection import Connection, reachable
from bridge.kafka.routing import RoutingTable
from bridge.runtime.findings import Finding, counted
from bridge.settings import Kafka

# In what a topic may differ while the ingress does all its work.
_HARMLESS = {"compression.type"}


async def check_kafka(kafka: Kafka, *, routes: RoutingTable) -> AsyncIterator[Finding]:
    """Look at the brokers, and at the topics if one answers."""
    reach = kafka.connection
    try:
        servers = reach.servers
        alive = await reachable(servers)
    except BridgeError as exc:
        yield Finding("kafka", "failed", str(exc), "mend the setting it names")
        return
    if not alive:
        text = f"no broker answers at {reach.bootstrap_servers}"
        yield Finding("kafka", "failed", text, "start it, or set BRIDGE_KAFKA__BOOTSTRAP_SERVERS")
        return
    if len(alive) < len(servers):
        text = f"{len(alive)} of {len(servers)} bootstrap servers answer: {', '.join(sorted(alive))}"
        yield Finding("kafka", "warning", text, "start the others, or take them out of BRIDGE_KAFKA__BOOTSTRAP_SERVERS")
    else:
        text = f"{reach.bootstrap_servers} answers, {kafka.security_protocol}"
        yield Finding("kafka", "ok", text)
    for finding in await _check_topics(reach, kafka, routes=routes):
        yield finding


async def _check_topics(reach: Connection, kafka: Kafka, *, routes: RoutingTable) -> list[Finding]:
    try:
        async with open_admin(reach) as admin:
            replicas = await admin.default_replication_factor()
            specs = topic_specs(
                routes,
                partitions=kafka.partitions,
                replication_factor=replicas,
                message_max_bytes=kafka.message_max_bytes,
            )
            deviations = await admin.check(specs)
    except BridgeError as exc:
        return [Finding("topics", "failed", str(exc), "see BRIDGE_KAFKA__SECURITY_PROTOCOL and the ACLs of our user")]
    return [finding for spec in specs for finding in _topic_findings(spec, deviations)]


def _topic_findings(spec: TopicSpec, deviations: Sequence[Deviation]) -> list[Finding]:
    found = [
        Finding(
            "topics",
            "warning" if each.what in _HARMLESS else "failed",
            f"{spec.name}: {each.what} is {each.found}, expected {each.expected}",
            ADVICE[each.what],
        )
        for each in deviations
        if each.topic == spec.name
    ]
    retention = "for ever" if spec.retention_ms < 0 else f"{spec.retention_ms // 86_400_000} days"
    return found or [Finding("topics", "ok", f"{spec.name}: {counted(spec.partitions, 'partition')}, kept {retention}")]
