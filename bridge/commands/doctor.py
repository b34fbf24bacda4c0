"""`drx-bridge doctor`: check everything the ingress needs, one line each, with advice for each failure."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial

import aiohttp
import click
import orjson
from yarl import URL

from bridge.commands.doctor_spool import check_spool
from bridge.commands.secrets import check_windows
from bridge.commands.topics import advice
from bridge.errors import BridgeError, ConfigError
from bridge.kafka.admin import Deviation, TopicSpec, open_admin, topic_specs
from bridge.kafka.connection import reachable
from bridge.kafka.routing import RoutingTable
from bridge.proof.key_sets import FILE as KEY_SET
from bridge.proof.key_sets import KeySetError, fetch
from bridge.registry.client import RegistryUnavailableError, open_client
from bridge.registry.ids import IdsMissingError, newest, resolve_ids, wanted, wrong_ids
from bridge.registry.loader import bundled
from bridge.runtime.findings import Finding, Report, counted
from bridge.runtime.process import MISCONFIGURED, bootstrap_option, with_brokers
from bridge.settings import HttpSettings, KafkaSettings, Management, Registry, Settings, load_settings
from bridge.sources import scheme_of
from bridge.start_checks import check_start

# Topic settings whose deviation does not harm the ingress.
_HARMLESS = {"compression.type"}
# Advice by the name of a readiness check.
_ADVICE = {
    "kafka": "see the Kafka lines above, and the log for `worker.producer_unavailable`",
    "spool": "see docs/spool.md for what to do for each code",
}
_LOG = "see its log, and docs/runbooks"
# Seconds within which a live process responds, as in the probes of the chart.
_ASK_S = 5.0


@click.command()
@bootstrap_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
def doctor(*, bootstrap_servers: str | None, as_json: bool) -> int:
    """Check configuration, secrets, Kafka, topics, registry, spool, and the ingress that runs here, if one does.

    Exit 0 if the ingress can do its work, 1 if it cannot, 2 if the configuration cannot be read.
    """
    report = Report(as_json=as_json)
    try:
        settings = with_brokers(load_settings(), bootstrap_servers)
    except ConfigError as exc:
        report.add(Finding("config", "failed", str(exc), "`drx-bridge config` shows every setting"))
        return report.close(MISCONFIGURED)
    asyncio.run(_examine(settings, add=report.add))
    return report.close(int(report.failed))


async def _examine(settings: Settings, *, add: Callable[..., None]) -> None:
    add(Finding("config", "ok", f"every setting is known and within its bounds; this instance is {settings.instance}"))
    refused = set()
    for finding in (*check_start(settings), *check_windows(settings, now=datetime.now(UTC))):
        add(finding)
        if finding.verdict == "failed":
            refused.add(finding.check)
    async for finding in check_key_sets(settings):
        add(finding)
    # If `serve` would not start with these settings, nothing is queried.
    routes = RoutingTable({} if "routes" in refused else settings.kafka.routes)
    if "kafka" not in refused:
        add(*await check_kafka(settings.kafka, routes=routes))
    if "registry" not in refused:
        add(await check_registry(settings.registry, routes=routes))
    add(*check_spool(settings.spool))
    async for finding in check_running(settings.http, settings.management):
        add(finding)


async def check_running(http: HttpSettings, management: Management) -> AsyncIterator[Finding]:
    """Query both ports of the running process: some faults show only there."""
    here, content, limit = f"{management.host}:{management.port}", b"", aiohttp.ClientTimeout(total=_ASK_S)
    for port, path in ((http, "/"), (management, "/readyz")):
        url = URL.build(scheme="http", host=port.host, port=port.port, path=path)
        try:
            async with aiohttp.ClientSession(timeout=limit) as session, session.get(url) as response:
                content = await response.read()
        except aiohttp.ClientConnectorError:
            content = b""
        except (aiohttp.ClientError, TimeoutError):
            text = f"a process listens at {port.host}:{port.port} and does not respond to {path} within {_ASK_S:g} s"
            advice = "keep its log and restart it; see docs/runbooks/HeartbeatMissing.md"
            yield Finding("process", "failed", f"{text}: the ingress hangs", advice)
            return
    try:
        report = orjson.loads(content)
        checks, reasons = dict(report["checks"]), dict(report.get("reasons", {}))
    except (ValueError, TypeError, KeyError):
        yield Finding("process", "ok", f"no ingress responds at {here}; the findings above apply to its next start")
        return
    failing = {name: word for name, word in checks.items() if word != "ok"}
    for name, word in failing.items():
        text = f"the ingress at {here} reports {name}: {reasons.get(name, word)}"
        yield Finding("process", "warning" if word == "degraded" else "failed", text, _ADVICE.get(name, _LOG))
    if not failing:
        yield Finding("process", "ok", f"the ingress at {here} is ready")


async def check_key_sets(settings: Settings) -> AsyncIterator[Finding]:
    """Read the keys of sources whose issuer publishes them, and keep nothing."""
    for name, source in settings.sources.items():
        with suppress(ConfigError):  # reported by an earlier check
            scheme = scheme_of(name, source)
            if scheme.jwks_url and source.secrets_dir:
                try:
                    await fetch(scheme, source.secrets_dir / KEY_SET)
                    yield Finding(f"keys {name}", "ok", f"{scheme.jwks_url} has usable keys")
                except KeySetError as exc:
                    kept = (source.secrets_dir / KEY_SET).exists()
                    advice = "check the URL and the network path to it; the keys read before stay in use"
                    yield Finding(f"keys {name}", "warning" if kept else "failed", str(exc), advice)


async def check_registry(registry: Registry, *, routes: RoutingTable) -> Finding:  # noqa: PLR0911 - one for each finding
    """Compare the registry's ids with our schemas; without a URL, check that the bundled lock can be read."""
    failed = partial(Finding, "registry", "failed")
    try:
        lock = bundled()
    except ConfigError as exc:
        return failed(str(exc), "reinstall the package")
    if registry.url is None:
        text = f"none configured; {len(lock.latest())} schemas with the ids of the bundled lock"
        return Finding("registry", "ok", text)
    needed = wanted(newest(lock), routes.topics_of_type)
    try:
        async with open_client(registry) as client:
            ids = await resolve_ids(needed, registry=client, path=registry.ids_file)
            wrong = await wrong_ids(needed, ids, registry=client)
    except IdsMissingError as exc:
        return failed(str(exc), "run `drx-bridge schemas push`")
    except RegistryUnavailableError as exc:
        known = "the ids of an earlier start stay in use" if registry.ids_file else "a first start would not be ready"
        return failed(f"{exc}; {known}", "check BRIDGE_REGISTRY__URL and the network path to it")
    except BridgeError as exc:
        return failed(str(exc), "check BRIDGE_REGISTRY__URL and its credentials")
    if wrong:
        text = f"{len(wrong)} ids belong to other schemas there, such as that of {wrong[0]}"
        return failed(text, "delete BRIDGE_REGISTRY__IDS_FILE and run `drx-bridge schemas push`")
    return Finding("registry", "ok", f"{client.url} holds all {len(ids)} schemas under the ids in use")


async def check_kafka(kafka: KafkaSettings, *, routes: RoutingTable) -> list[Finding]:
    """Check the brokers, and the topics if a broker responds."""
    reach, found = kafka.connection, list[Finding]()
    try:
        servers = reach.servers
        alive = await reachable(servers)
    except BridgeError as exc:
        return [Finding("kafka", "failed", str(exc), "correct the setting it names")]
    if not alive:
        text = f"no broker responds at {reach.bootstrap_servers}"
        return [Finding("kafka", "failed", text, "start it, or set BRIDGE_KAFKA__BOOTSTRAP_SERVERS")]
    responded = Finding("kafka", "ok", f"{reach.bootstrap_servers} responds, {kafka.security_protocol}")
    if len(alive) < len(servers):
        text = f"{len(alive)} of {len(servers)} bootstrap servers respond: {', '.join(sorted(alive))}"
        remedy = "start the others, or take them out of BRIDGE_KAFKA__BOOTSTRAP_SERVERS"
        responded = Finding("kafka", "warning", text, remedy)
    try:
        async with open_admin(reach) as admin:
            found.append(responded)
            replicas = await admin.default_replication_factor()
            specs = topic_specs(
                routes.topics,
                partitions=kafka.partitions,
                replication_factor=replicas,
                message_max_bytes=kafka.message_max_bytes,
            )
            deviations = await admin.check(specs)
    except BridgeError as exc:
        remedy = "see BRIDGE_KAFKA__SECURITY_PROTOCOL and the ACLs of our user"
        return [*found, Finding("topics" if found else "kafka", "failed", str(exc), remedy)]
    return found + [finding for spec in specs for finding in _topic_findings(spec, deviations)]


def _topic_findings(spec: TopicSpec, deviations: Sequence[Deviation]) -> list[Finding]:
    found = [
        Finding(
            "topics",
            "warning" if each.what in _HARMLESS or each.adds_partitions else "failed",
            f"{spec.name}: {each.what} is {each.found}, expected {each.expected}",
            advice(each),
        )
        for each in deviations
        if each.topic == spec.name
    ]
    retention = "forever" if spec.retention_ms < 0 else f"{spec.retention_ms // 86_400_000} days"
    return found or [Finding("topics", "ok", f"{spec.name}: {counted(spec.partitions, 'partition')}, kept {retention}")]
