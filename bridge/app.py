"""Composition root: the one file that knows every concrete class of the ingress and how they fit together."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import get_args

from prometheus_client import CollectorRegistry

from bridge.avro.schema_ids import SchemaIds
from bridge.contract.events import EVENT_MODELS
from bridge.durability import CLOSE_S, Durability, aside, open_durability
from bridge.errors import ConfigError
from bridge.ingress.deduplicator import Deduplicator
from bridge.ingress.heartbeat import Heartbeat
from bridge.ingress.metrics import SERVICE, UNKNOWN, Observations
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.profile import Profile, dedupe_window_s
from bridge.ingress.routes import Admission, Source, Webhooks
from bridge.ingress.secrets import DecoyKeys, Outcome, SecretDirectory
from bridge.kafka.routing import RoutingTable
from bridge.runtime.health import Check, Management
from bridge.runtime.http import HardenedServer
from bridge.runtime.lifecycle import (
    EndOf,
    Overdue,
    Worker,
    background,
    first_fault,
    run_workers,
    stop_on_signals,
    unless,
)
from bridge.runtime.metrics import IngressMetrics, LoopLag
from bridge.settings import Http, Settings

# The management port drains for a second, and has a second to close what is left.
MANAGEMENT_CLOSE_S = 3.0


class PublicPort:
    """The worker behind the public port."""

    def __init__(self, server: HardenedServer, http: Http, *, drain_s: float) -> None:
        """Serve as `http` says."""
        self._server = server
        self._http = http
        self._drain_s = drain_s

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop` is set, then answer what is in flight."""
        await self._server.serve(self._http.host, self._http.port, stop=stop, drain_s=self._drain_s)


async def run_ingress(settings: Settings) -> list[signal.Signals]:
    """Run the ingress until SIGTERM or SIGINT; return the signals that came.

    Raises:
        ConfigError: The operator must change something; nothing was started that is not ended again.
    """
    stop = asyncio.Event()
    signals = stop_on_signals(stop)
    overdue = asyncio.create_task(Overdue(settings.shutdown.overdue_s).run(stop))
    try:
        async with AsyncExitStack() as stack:
            # A disk or a resolver that hangs must not keep a process that may end at any time.
            workers = await unless(stop, stack.enter_async_context(open_ingress(settings)))
            if workers is not None:
                await run_workers(workers, stop=stop, drain_timeout_s=settings.shutdown.drain_s + CLOSE_S)
    except ExceptionGroup as group:
        raise (first_fault(group, ConfigError) or group) from None
    finally:
        # Also after a failure: a thread that hangs would be waited for at the very end.
        stop.set()
        await overdue
    return signals


@asynccontextmanager
async def open_ingress(settings: Settings) -> AsyncIterator[list[Worker]]:
    """Build from leaf to root and yield what to run until the stop; then end publisher, producer, management port.

    Raises:
        ConfigError: No source, or a profile, secret, route or address that cannot be used.
    """
    if not settings.sources:
        msg = "no source is configured; set BRIDGE_SOURCES__<NAME>__PROFILE, __ENVIRONMENT and __SECRETS_DIR"
        raise ConfigError(msg)
    async with AsyncExitStack() as stack:
        metrics = IngressMetrics(CollectorRegistry())
        secrets = await aside(partial(_open_secrets, settings, metrics))
        heartbeat = _heartbeat(settings, metrics)
        sources = _sources(settings, secrets) | {each.source.name: each.source for each in heartbeat}
        routing = RoutingTable(settings.kafka.routes)
        ids = await aside(
            partial(SchemaIds, settings.registry, routing=routing, requests=metrics.schema_registry_requests)
        )
        # Outlives all others, so that a start and a stop can be watched from outside; not ready until all is there.
        checks: dict[str, Check] = {"starting": lambda: "starting"}
        management = Management(
            checks=checks,
            registry=metrics.registry,
            host=settings.management.host,
            port=settings.management.port,
        )
        managing = await stack.enter_async_context(background(management, drain_timeout_s=MANAGEMENT_CLOSE_S))
        durability = await stack.enter_async_context(
            open_durability(
                settings,
                routing=routing,
                encode=ids.encode,
                windows_s={name: _window_s(settings, source) for name, source in sources.items()},
                metrics=metrics,
            )
        )
        server = _server(settings, sources, durability, metrics)
        checks.pop("starting")
        checks.update(_checks(server, durability, ids, secrets))
        yield [
            PublicPort(server, settings.http, drain_s=settings.shutdown.drain_s),
            EndOf(managing),
            *durability.workers,
            ids,
            LoopLag(metrics.event_loop_lag),
            *heartbeat,
            *secrets.values(),
        ]


def _window_s(settings: Settings, source: Source) -> float:
    """Seconds that ids of a source are remembered."""
    configured = settings.sources.get(source.name)
    return (configured and configured.dedupe_window_s) or dedupe_window_s(source.profile)


def _heartbeat(settings: Settings, metrics: IngressMetrics) -> list[Heartbeat]:
    """Return the worker, if there is to be one."""
    if not settings.heartbeat.enabled:
        return []
    environments = {source.environment for source in settings.sources.values()}
    heartbeat = Heartbeat(
        host=settings.http.host,
        port=settings.http.port,
        environment="production" if "production" in environments else "sandbox",
        account_id=f"heartbeat-{settings.instance}",
        every_s=settings.heartbeat.every_s,
        timeout_s=settings.http.deadline_s,
        seen=metrics.heartbeat_last_seen.labels(SERVICE),
    )
    return [heartbeat]


def _open_secrets(settings: Settings, metrics: IngressMetrics) -> dict[str, SecretDirectory]:
    opened = {}
    for name, source in settings.sources.items():
        opened[name] = SecretDirectory(
            path=source.secrets_dir,
            source=name,
            observe=partial(_count_reload, metrics, name),
        )
        for outcome in get_args(Outcome):
            metrics.secret_reload.labels(name, outcome)
        metrics.secret_expiry.labels(name).set_function(partial(getattr, opened[name], "expires_at"))
    return opened


def _count_reload(metrics: IngressMetrics, source: str, outcome: str) -> None:
    metrics.secret_reload.labels(source, outcome).inc()


def _check_secrets(slots: SecretDirectory) -> str:
    return "ok" if any(slot.counts_at(time.time()) for slot in slots.keys) else "no_active_secret"


def _sources(settings: Settings, secrets: Mapping[str, SecretDirectory]) -> dict[str, Source]:
    return {
        name: Source(
            name=name,
            environment=source.environment,
            profile=_profile(name, source.profile),
            keys=partial(getattr, secrets[name], "keys"),
            tolerance_s=source.tolerance_s,
        )
        for name, source in settings.sources.items()
    }


def _profile(source: str, name: str) -> Profile:
    try:
        return load_profile(name)
    except ConfigError as exc:
        msg = f"sources.{source}.profile: {exc}"
        raise ConfigError(msg) from None


def _server(
    settings: Settings, sources: Mapping[str, Source], durability: Durability, metrics: IngressMetrics
) -> HardenedServer:
    http = settings.http
    example = next(iter(sources.values()))
    decoy = Source(
        name=UNKNOWN,
        environment=example.environment,
        profile=example.profile,
        keys=DecoyKeys(example.keys),
        tolerance_s=example.tolerance_s,
    )
    admission = Admission(count_max=http.inflight_max, bytes_max=http.inflight_max_bytes)
    webhooks = Webhooks(
        sources=sources,
        decoy=decoy,
        deduplicator=Deduplicator(
            publisher=durability.publisher, repeats=durability.dedupe, deadline_s=http.deadline_s
        ),
        admission=admission,
        observations=Observations(metrics, sources=sources, event_types=EVENT_MODELS, deadline_s=http.deadline_s),
        body_max_bytes=http.body_max_bytes,
    )
    server = HardenedServer(
        webhooks.handle,
        read_timeout_s=http.read_timeout_s,
        keepalive_s=http.keepalive_s,
        connections_max=http.connections_max,
        reading_max_bytes=http.reading_max_bytes,
        on_malformed=webhooks.malformed,
        on_ended=lambda reason: metrics.http_connections_ended.labels(reason).inc(),
    )
    metrics.http_inflight_requests.set_function(lambda: admission.count)
    metrics.http_open_connections.set_function(lambda: server.open_connections)
    return server


def _checks(
    server: HardenedServer, durability: Durability, ids: SchemaIds, secrets: Mapping[str, SecretDirectory]
) -> dict[str, Check]:
    """Ready means: an event can be made durable now, and this process is not draining."""
    return {
        "draining": lambda: "draining" if server.draining else "ok",
        **durability.checks,
        "schema_ids": lambda: "ok" if ids.known else "unknown",
        **{f"secrets_{name}": partial(_check_secrets, slots) for name, slots in secrets.items()},
    }
