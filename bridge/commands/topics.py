"""`drx-bridge topics`: create missing topics, check the others against the contract, or copy one."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import click
import orjson

from bridge.errors import ConfigError
from bridge.kafka.admin import Admin, Deviation, TopicSpec, open_admin, topic_specs
from bridge.kafka.routing import RoutingTable
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.process import Group, bootstrap_option, combined, pairs, with_brokers
from bridge.settings import Settings, load_settings

ADVICE = {
    "missing": "run `drx-bridge topics create`",
    "partitions": "set BRIDGE_KAFKA__PARTITIONS to the number at the log's creation; a change breaks the order of keys",
    "replication_factor": "add replicas with kafka-reassign-partitions",
    "min.insync.replicas": "kafka-configs --alter; if it is lower, an acknowledged record may be on one disk only",
    "retention.ms": "kafka-configs --alter; the log of events is the source of truth",
    "max.message.bytes": "kafka-configs --alter; a record that is too large for the topic blocks its partition",
    "compression.type": "kafka-configs --alter to producer; another codec is readable here, but costs the broker CPU",
    "cleanup.policy": "kafka-configs --alter; compaction would drop all but the last event of a key",
}
_MORE_PARTITIONS = "more than configured: harmless, leave the setting; see docs/runbooks/PartitionCountMismatch.md"


def advice(deviation: Deviation) -> str:
    """Return the advice for a deviation."""
    return _MORE_PARTITIONS if deviation.adds_partitions else ADVICE.get(deviation.what, "kafka-configs --alter")


# A rarely used command, imported only when it runs.
_ELSEWHERE = {"copy": ("bridge.commands.topics_copy:copy", "Copy a topic to one with another number of partitions.")}


@click.group(cls=Group, modules=_ELSEWHERE)
def topics() -> None:
    """Create, check or copy the topics that the bridge writes."""


def _configs(_context: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """Parse `--config`; settings that the contract fixes are refused."""
    configs = dict(pairs(given, "=", usage="--config is NAME=VALUE"))
    if fixed := sorted(configs.keys() & ADVICE.keys()):
        raise click.BadParameter(f"{', '.join(fixed)}: fixed by the contract, by a setting or by an option")
    return configs


_options = combined(
    click.option("--replication-factor", type=click.IntRange(1), help="Default: the number of brokers, at most 3."),
    bootstrap_option,
    click.option("--min-insync-replicas", type=click.IntRange(1), help="Default: one less than the replicas."),
    click.option(
        "--config",
        "configs",
        multiple=True,
        callback=_configs,
        metavar="NAME=VALUE",
        help="Additional topic setting NAME=VALUE, such as segment.bytes. Repeatable.",
    ),
    click.option("--json", "as_json", is_flag=True, help="One JSON line per topic."),
)


@topics.command()
@click.option("--topic", help="Create only this topic, such as one that a consumer publishes to; needs --like.")
@click.option("--like", metavar="TOPIC", help="Topic to copy partitions, replicas and limits from.")
@_options
@audit_options
def create(
    *,
    topic: str | None,
    like: str | None,
    replication_factor: int | None,
    min_insync_replicas: int | None,
    configs: Mapping[str, str],
    bootstrap_servers: str | None,
    as_json: bool,
    actor: str,
    reason: str,
) -> int:
    """Create the missing topics; existing topics are not changed."""
    settings = with_brokers(load_settings(), bootstrap_servers)
    if (topic is None) != (like is None):
        raise click.UsageError("--topic and --like must be given together")

    async def order() -> dict[str, str]:
        async with open_admin(settings.kafka.connection) as admin:
            if topic is None or like is None:
                specs = await _specs(admin, settings, replication_factor, min_insync_replicas, configs)
            else:
                specs = [_like(await admin.read(like), topic, replication_factor, min_insync_replicas, configs)]
            _refuse_unwritable(specs)
            outcomes = await admin.create(specs)
        for spec in specs:
            outcome = outcomes[spec.name]
            _say(
                {"topic": spec.name, "outcome": outcome},
                f"{spec.name}: {outcome}" + (f", {_words(spec)}" if outcome == "created" else ""),
                as_json=as_json,
            )
        return dict(outcomes)

    with audited("topics.create", actor=actor, reason=reason) as ended:
        ended["topics"] = asyncio.run(order())
    return 0


@topics.command()
@_options
def check(
    *,
    replication_factor: int | None,
    min_insync_replicas: int | None,
    configs: Mapping[str, str],
    bootstrap_servers: str | None,
    as_json: bool,
) -> int:
    """Compare the topics with the contract; exit 1 on a deviation."""
    settings = with_brokers(load_settings(), bootstrap_servers)

    async def ask() -> int:
        async with open_admin(settings.kafka.connection) as admin:
            specs = await _specs(admin, settings, replication_factor, min_insync_replicas, configs)
            deviations = await admin.check(specs)
        for spec in specs:
            mine = [deviation for deviation in deviations if deviation.topic == spec.name]
            line = "; ".join(map(_complaint, mine)) or f"ok, {_words(spec)}"
            found = [{k: v for k, v in asdict(deviation).items() if k != "topic"} for deviation in mine]
            _say({"topic": spec.name, "ok": not mine, "deviations": found}, f"{spec.name}: {line}", as_json=as_json)
        return int(bool(deviations))

    return asyncio.run(ask())


async def _specs(
    admin: Admin, settings: Settings, factor: int | None, min_insync: int | None, configs: Mapping[str, str]
) -> list[TopicSpec]:
    return topic_specs(
        RoutingTable(settings.kafka.routes).topics,
        partitions=settings.kafka.partitions,
        replication_factor=factor or await admin.default_replication_factor(),
        message_max_bytes=settings.kafka.message_max_bytes,
        min_insync_replicas=min_insync,
        more=configs,
    )


def _like(
    model: TopicSpec, name: str, factor: int | None, min_insync: int | None, configs: Mapping[str, str]
) -> TopicSpec:
    return replace(
        model,
        name=name,
        replication_factor=factor or model.replication_factor,
        min_insync_replicas=min_insync or model.min_insync_replicas,
        more=configs,
    )


def _refuse_unwritable(specs: Sequence[TopicSpec]) -> None:
    """Refuse settings with which Kafka would create a topic and then reject every write to it."""
    for spec in specs:
        if spec.min_insync_replicas > spec.replication_factor:
            msg = f"--min-insync-replicas: {spec.min_insync_replicas} of {spec.replication_factor} can never be in sync"
            raise ConfigError(msg)


def _words(spec: TopicSpec) -> str:
    keeps = "forever" if spec.retention_ms < 0 else f"for {spec.retention_ms // 86_400_000} days"
    return (
        f"{spec.partitions} partitions, {spec.replication_factor} replicas of which {spec.min_insync_replicas} in sync,"
        f" kept {keeps}, records up to {spec.message_max_bytes} bytes"
    )


def _complaint(deviation: Deviation) -> str:
    what = (
        "missing" if deviation.what == "missing" else f"{deviation.what} is {deviation.found}, not {deviation.expected}"
    )
    return f"{what} → {advice(deviation)}"


def _say(document: dict[str, object], line: str, *, as_json: bool) -> None:
    click.echo(orjson.dumps(document) if as_json else line)
