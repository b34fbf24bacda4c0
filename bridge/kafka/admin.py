"""Create and check the topics of the contract; wraps aiokafka's admin client."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiokafka import errors as kafka_errors  # noqa: TID251 - this module wraps it
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: TID251 - as above
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType  # noqa: TID251 - as above

from bridge.errors import CodedError
from bridge.kafka.connection import BUGS, CLIENT_FAILURES, KafkaConnection, refusal
from bridge.kafka.producer import end_client
from bridge.kafka.record import MESSAGE_MAX_BYTES
from bridge.kafka.routing import UNRECOGNIZED_TOPIC

# Seconds for the whole operation, and for one request; creating all topics on a busy cluster takes seconds.
ADMIN_S = 30.0
_REQUEST_MS = 20_000
REPLICAS_MAX = 3
# docs/contract.md §4: the log of events is the source of truth; raw deliveries are kept for 30 days.
FOREVER_MS = -1
UNRECOGNIZED_RETENTION_MS = 30 * 86_400_000

# Settings of a topic that may be larger than required.
_AT_LEAST = {"replication_factor", "min.insync.replicas", "max.message.bytes"}

_REFUSALS: Mapping[type[Exception], tuple[str, str]] = {
    kafka_errors.InvalidReplicationFactorError: ("too_few_brokers", "more replicas than there are brokers"),
    kafka_errors.TopicAuthorizationFailedError: ("not_authorized", "our user may not do this (ACL)"),
    kafka_errors.ClusterAuthorizationFailedError: ("not_authorized", "our user may not do this (ACL)"),
    kafka_errors.InvalidConfigurationError: ("bad_config", "a --config that Kafka does not know, or its value"),
    kafka_errors.PolicyViolationError: ("policy", "a policy of the cluster forbids it"),
}


class AdminError(CodedError):
    """The cluster does not respond or refuses; the message is one line for an operator."""

    retriable = True


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """Required partitions, replicas and settings of a topic."""

    name: str
    partitions: int
    replication_factor: int  # lower bound
    min_insync_replicas: int  # lower bound; writes need that many in-sync replicas
    retention_ms: int  # exact; -1 keeps records without a time limit
    message_max_bytes: int = MESSAGE_MAX_BYTES  # lower bound
    more: Mapping[str, str] = field(default_factory=dict)  # further exact settings, beyond those of the contract

    @property
    def configs(self) -> dict[str, str]:
        """Return the topic's settings by Kafka's names."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "min.insync.replicas": str(self.min_insync_replicas),
            "max.message.bytes": str(self.message_max_bytes),
            # With another codec, the broker repacks every batch, and each reader must have that codec.
            "compression.type": "producer",
            **self.more,
        }


@dataclass(frozen=True, slots=True)
class Deviation:
    """A difference between a topic and its specification."""

    topic: str
    what: str  # `missing`, `partitions`, `replication_factor`, or the name of a setting
    expected: str
    found: str

    @property
    def adds_partitions(self) -> bool:
        """Whether the topic has more partitions than configured; the extra ones stay empty."""
        return self.what == "partitions" and int(self.found) > int(self.expected)


def topic_specs(
    names: Iterable[str],
    *,
    partitions: int,
    replication_factor: int,
    message_max_bytes: int = MESSAGE_MAX_BYTES,
    min_insync_replicas: int | None = None,
    more: Mapping[str, str] | None = None,
) -> list[TopicSpec]:
    """Return the specification of each topic; by default `min_insync_replicas` allows one replica to fail."""
    in_sync = max(1, replication_factor - 1) if min_insync_replicas is None else min_insync_replicas
    return [
        TopicSpec(
            name=name,
            partitions=partitions,
            replication_factor=replication_factor,
            min_insync_replicas=in_sync,
            retention_ms=UNRECOGNIZED_RETENTION_MS if name == UNRECOGNIZED_TOPIC else FOREVER_MS,
            message_max_bytes=message_max_bytes,
            more=more or {},
        )
        for name in names
    ]


@asynccontextmanager
async def open_admin(connection: KafkaConnection) -> "AsyncIterator[Admin]":
    """Open a client for at most `ADMIN_S`; `ConfigError` for an unusable file, `AdminError` if nothing responds."""
    options = await connection.reach()
    if not options["bootstrap_servers"]:
        raise AdminError("unreachable", f"no broker answers at {connection.bootstrap_servers}")
    client = AIOKafkaAdminClient(**options, client_id="drx-bridge-admin", request_timeout_ms=_REQUEST_MS)
    try:
        async with asyncio.timeout(ADMIN_S):
            await client.start()
            yield Admin(client)
    except BUGS:
        raise
    except CLIENT_FAILURES as exc:
        message = f"{connection.bootstrap_servers} accepts connections but does not respond: {refusal(options).doubt}"
        raise AdminError("no_answer", message) from exc
    finally:
        await end_client(client._client)  # noqa: SLF001 - `close()` may hang


class Admin:
    """Reads and changes a cluster's topics."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def brokers(self) -> set[int]:
        """Return the ids of the live brokers."""
        return {broker["node_id"] for broker in (await self._client.describe_cluster())["brokers"]}

    async def default_replication_factor(self) -> int:
        """Return the default replication factor: one replica per broker, at most three."""
        return min(REPLICAS_MAX, len(await self.brokers()))

    async def create(self, specs: Sequence[TopicSpec]) -> dict[str, Literal["created", "exists"]]:
        """Create the missing topics; after an `AdminError`, some may have been created."""
        wanted = [
            NewTopic(spec.name, spec.partitions, spec.replication_factor, topic_configs=spec.configs) for spec in specs
        ]
        response = await self._client.create_topics(wanted, timeout_ms=_REQUEST_MS)
        outcomes: dict[str, Literal["created", "exists"]] = {}
        for name, error_code, *_ in response.topic_errors:
            error = kafka_errors.for_code(error_code)
            if error not in {kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError}:
                raise _refusal(name, error)
            outcomes[name] = "created" if error is kafka_errors.NoError else "exists"
        # Wait until every broker knows the new topics; the response to the creation comes earlier.
        while len(await self._partitions(outcomes)) < len(outcomes):  # noqa: ASYNC110 - a broker sends no event
            await asyncio.sleep(0.05)
        return outcomes

    async def check(self, specs: Sequence[TopicSpec]) -> list[Deviation]:
        """Return the deviations of the cluster from `specs`."""
        found = await self._describe([spec.name for spec in specs])
        return [deviation for spec in specs for deviation in _deviations(spec, found.get(spec.name))]

    async def read(self, name: str) -> TopicSpec:
        """Return the specification of an existing topic; `AdminError` if it does not exist."""
        found = (await self._describe([name])).get(name)
        if found is None:
            raise AdminError("topic_missing", f"no such topic: {name}")
        return TopicSpec(
            name=name,
            partitions=int(found["partitions"]),
            replication_factor=int(found["replication_factor"]),
            min_insync_replicas=int(found["min.insync.replicas"]),
            retention_ms=int(found["retention.ms"]),
            message_max_bytes=int(found["max.message.bytes"]),
        )

    async def _partitions(self, names: Mapping[str, str] | Sequence[str]) -> dict[str, list[Any]]:
        # A metadata request by name might create a missing topic with the broker's defaults.
        topics = await self._client.describe_topics()
        return {
            topic["topic"]: topic["partitions"]
            for topic in topics
            if topic["topic"] in names and not topic["error_code"]
        }

    async def _describe(self, names: Sequence[str]) -> dict[str, dict[str, str]]:
        """Return the state of the topics, with the keys of `Deviation.what`."""
        partitions = await self._partitions(names)
        if not partitions:
            return {}
        asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in partitions]
        configs: dict[str, dict[str, str]] = {}
        for response in await self._client.describe_configs(asked):
            for error_code, _message, _kind, name, entries in response.resources:
                if error_code:
                    error = kafka_errors.for_code(error_code)
                    raise AdminError("refused", f"{name}: its settings cannot be read: {error.__name__} (ACL?)")
                configs[name] = {entry[0]: entry[1] for entry in entries}
        return {
            name: {
                "partitions": str(len(each)),
                "replication_factor": str(min(len(partition["replicas"]) for partition in each)),
                **configs.get(name, {}),
            }
            for name, each in partitions.items()
        }


def _deviations(spec: TopicSpec, found: Mapping[str, str] | None) -> list[Deviation]:
    if found is None:
        return [Deviation(spec.name, "missing", expected="a topic", found="none")]
    deviations = []
    counts = {"partitions": str(spec.partitions), "replication_factor": str(spec.replication_factor)}
    for name, expected in {**counts, **spec.configs}.items():
        value = found.get(name, "unknown")
        enough = name in _AT_LEAST and value.isdigit() and int(value) >= int(expected)
        if value != expected and not enough:
            shown = f"at least {expected}" if name == "replication_factor" else expected
            deviations.append(Deviation(spec.name, name, shown, value))
    return deviations


def _refusal(topic: str, error: type[Exception]) -> AdminError:
    code, why = _REFUSALS.get(error, ("refused", f"the broker returned {error.__name__}"))
    return AdminError(code, f"{topic} cannot be created: {why}")
