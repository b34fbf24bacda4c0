"""The endpoint that events are sent to: one signed request per attempt."""

import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

from prometheus_client import CollectorRegistry, Counter, Gauge

from bridge.errors import BridgeError, ConfigError, TransientError
from bridge.event import Event
from bridge.runtime.lifecycle import background
from bridge.runtime.metrics import NAMESPACE
from bridge.runtime.secret_files import Reload, SecretsError, SlotDirectory, read_lines
from bridge.runtime.signing_secret import Slot, expires_at, shared_key, sign
from consumers.api import Context
from consumers.forward.mapping import EndpointRequest
from consumers.forward.options import NAME, ForwardOptions
from consumers.http import HttpClient, RequestMetrics, open_http
from consumers.options import is_plain

# Codes of `consumers.http` for an unavailable endpoint. A receiver of webhooks need not support GET, so any other
# response to the ping counts as available.
_AWAY = frozenset({"unreachable", "tls", "timeout", "cut_off", "http_429", "http_502", "http_503", "http_504"})
# Statuses about a single event if the path depends on it: its resource may be gone while others exist. Such an event is
# parked if others succeed meanwhile.
_NOT_THERE = frozenset({404, 410})
# Headers that `headers_file` must not set: our own and those of the connection.
_OURS = re.compile(
    r"webhook-.*|drx-.*|idempotency-key|traceparent|content-.*|host|connection|transfer-encoding|expect|upgrade"
)
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110, section 5.6.2
# Seconds; the watcher of secrets ends immediately.
_CLOSE_S = 1.0

SigningSlot: TypeAlias = Slot[bytes]
"""A secret and its period of validity."""


class ForwardMetrics(RequestMetrics):
    """Counts attempts, without pings.

    Metrics of secrets have the same names as in the ingress, with the service as the source, for the same alerts.
    """

    def __init__(self, registry: CollectorRegistry, *, service: str) -> None:
        super().__init__(registry, name=NAME, service=service)
        own: dict[str, Any] = {"namespace": NAMESPACE, "registry": registry}
        self._reload = Counter("secret_reload", "Reloads of a secrets directory", ("source", "outcome"), **own)
        expiry = "secret_expiry_timestamp_seconds"
        self._expiry = Gauge(expiry, "When the last secret of a source expires", ("source",), **own).labels(service)
        for outcome in ("reloaded", "failed"):
            self._reload.labels(service, outcome)

    def reloaded(self, outcome: Reload) -> None:
        """Count a reading of the secrets."""
        self._reload.labels(self.service, outcome).inc()

    def watch(self, expires_at: Callable[[], float]) -> None:
        """`expires_at` is called at each scrape, for the Unix seconds when the last secret expires."""
        self._expiry.set_function(expires_at)


class Endpoint:
    """The endpoint of events; can be shared among lanes."""

    def __init__(
        self,
        http: HttpClient,
        slots: SlotDirectory[SigningSlot],
        options: ForwardOptions,
        *,
        metrics: ForwardMetrics,
        now: Callable[[], float],
    ) -> None:
        """`http` is a session with the URL of the options; `now` is in Unix seconds."""
        self._http = http
        self._slots = slots
        self._method = options.method
        # The session's base URL has no final slash, which may matter to the receiver.
        self._slash = "/" if options.url.endswith("/") else ""
        self._passing = _NOT_THERE if "{" in options.path else frozenset()
        self._metrics = metrics
        self._now = now

    async def send(self, event: Event, context: Context, request: EndpointRequest) -> None:
        """Send one event; attempts have the same id, path and body, but their own timestamp and signatures.

        Raises as in the table of `consumers.http`; `no_secret` if no slot is valid now.
        """
        now = self._now()
        headers = _headers(event, context) | {
            "webhook-timestamp": str(int(now)),
            "webhook-signature": self._signed(event.id, now, request.body),
        }
        with self._metrics.timed():
            response = await self._http.request(
                self._method, request.path or self._slash, request.body, headers=headers, also=self._passing
            )
            if response.status in self._passing:
                code = f"http_{response.status}"
                raise TransientError(code)

    async def ping(self) -> None:
        """Check by a GET that the endpoint is available; only an event shows whether it accepts events."""
        self._signed("ping", self._now(), b"")
        try:
            await self._http.request("GET", self._slash)
        except BridgeError as exc:
            if exc.code in _AWAY:
                raise

    def _signed(self, webhook_id: str, now: float, body: bytes) -> str:
        signed = signatures(self._slots.keys, webhook_id=webhook_id, now=now, body=body)
        if not signed:
            raise TransientError("no_secret", systemic=True)
        return signed


def _headers(event: Event, context: Context) -> dict[str, str]:
    """Return the headers that all attempts share; a foreign record may lack some or have invalid values."""
    place = {
        "drx-topic": context.topic,
        "drx-partition": str(context.partition),
        "drx-offset": str(context.offset),
        "drx-ordinal": context.ordinal,
        "traceparent": context.traceparent,
    }
    return {
        "content-type": "application/json",
        "webhook-id": event.id,
        "idempotency-key": event.id,
        **{name: text for name, text in place.items() if is_plain(text)},
    }


@asynccontextmanager
async def open_endpoint(
    options: ForwardOptions, metrics: ForwardMetrics, *, now: Callable[[], float] = time.time
) -> AsyncIterator[Endpoint]:
    """Open the session, and watch the secrets while it is open."""
    slots = SlotDirectory(options.secrets_dir, parse_slot, source=metrics.service, observe=metrics.reloaded)
    metrics.watch(lambda: expires_at(slots.keys))
    async with (
        open_http(
            options.url,
            connections=options.lanes + 1,  # one connection for the ping
            headers=read_headers(options.headers_file),
            **options.session(NAME),
        ) as http,
        background(slots, drain_timeout_s=_CLOSE_S),
    ):
        yield Endpoint(http, slots, options, metrics=metrics, now=now)


def read_headers(file: Path | None) -> Mapping[str, str]:
    """Read `Name: value` lines; empty lines are ignored. Error messages do not contain a line."""
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ConfigError(f"forward.headers_file: cannot read {file}, or it is not ASCII") from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        name = name.lower()
        if not colon or not _is_name(name) or not value.isprintable() or name in found or _OURS.fullmatch(name):
            where = f"forward.headers_file: line {number} of {file}"
            raise ConfigError(f"{where} is not `Name: value`, is repeated, or is set by forward")
        found[name] = value
    return found


def parse_slot(where: Path, content: bytes) -> SigningSlot:
    """Parse a slot file, whose first line is `whsec_…`; error messages name the file without its content."""
    (secret,), window = read_lines(where, content)
    if key := shared_key(secret):
        return Slot(where.name, key, **window)
    raise SecretsError("secret_malformed", f"{where}: a signing secret is whsec_ and the base64 of 24 to 64 bytes")


def signatures(slots: Iterable[SigningSlot], *, webhook_id: str, now: float, body: bytes) -> str:
    """Return the value of `webhook-signature`: an element for each slot valid `now` (Unix seconds)."""
    return " ".join(sign(webhook_id, int(now), body, key=slot.key) for slot in slots if slot.counts_at(now))
