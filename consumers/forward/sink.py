"""The endpoint that events are sent to: one signed request for each attempt."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

from bridge.errors import BridgeError, ConfigError, TransientError
from bridge.event import Event
from bridge.runtime.lifecycle import background
from bridge.runtime.slots import SlotDirectory
from consumers.api import Context
from consumers.forward.mapping import Request, is_header_text
from consumers.forward.metrics import ForwardMetrics
from consumers.forward.options import NAME, ForwardOptions
from consumers.forward.signing import SigningSlot, parse_slot, signatures
from consumers.http import Http, open_http
from consumers.options import variable

# Codes of `consumers.http` for an unavailable endpoint. A receiver of webhooks need not support GET, so any other
# answer to the ping counts as available.
_AWAY = frozenset({"unreachable", "tls", "timeout", "cut_off", "http_429", "http_502", "http_503", "http_504"})
# Where the path is that of one event: its resource may be gone, and others may be there.
_NOT_THERE = frozenset({404, 410})
# Headers that `headers_file` may not set: ours, or the connection's.
_OURS = re.compile(
    r"webhook-.*|drx-.*|idempotency-key|traceparent|content-.*|host|connection|transfer-encoding|expect|upgrade"
)
_is_name = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch  # RFC 9110, section 5.6.2
# The secrets are watched by a loop that ends at once.
_CLOSE_S = 1.0


class Endpoint:
    """Where events go; safe to share among lanes."""

    def __init__(
        self,
        http: Http,
        slots: SlotDirectory[SigningSlot],
        *,
        method: str,
        slash: str,
        passing: Collection[int],
        metrics: ForwardMetrics,
        now: Callable[[], datetime],
    ) -> None:
        """Send through `http`; `slash` ends its base URL where no path follows, `now` is aware UTC.

        `passing` are statuses that may be of one event alone: what gets one is parked if others go on meanwhile.
        """
        self._http = http
        self._slots = slots
        self._method = method
        self._slash = slash
        self._passing = passing
        self._metrics = metrics
        self._now = now

    async def send(self, event: Event, context: Context, request: Request) -> None:
        """Send one event; every attempt has the same id, path and body, and a time and signatures of its own.

        Raises:
            TransientError: Not now; see the table of `consumers.http`. `no_secret`: no slot counts now.
            PermanentError: The endpoint refuses this event for good.
        """
        now = self._now()
        headers = _headers(event, context) | {
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signed(event.id, now, request.body),
        }
        with self._metrics.requests.timed():
            answer = await self._http.request(
                self._method, request.path or self._slash, request.body, headers=headers, also=self._passing
            )
            if answer.status in self._passing:
                code = f"http_{answer.status}"
                raise TransientError(code)

    async def ping(self) -> None:
        """Check by a GET that the endpoint is available; whether it takes events, the next one shows.

        Raises:
            TransientError: Nobody is, or no secret counts now.
        """
        self._signed("ping", self._now(), b"")
        try:
            await self._http.get(self._slash)
        except BridgeError as exc:
            if exc.code in _AWAY:
                raise

    def _signed(self, webhook_id: str, now: datetime, body: bytes) -> str:
        signed = signatures(self._slots.keys, webhook_id=webhook_id, now=now, body=body)
        if not signed:
            raise TransientError("no_secret", systemic=True)
        return signed


def _headers(event: Event, context: Context) -> dict[str, str]:
    """Return what is the same at every attempt; a foreign record may lack some, or have what is no header."""
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
        **{name: text for name, text in place.items() if is_header_text(text)},
    }


@asynccontextmanager
async def open_endpoint(
    options: ForwardOptions, metrics: ForwardMetrics, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> AsyncIterator[Endpoint]:
    """Open the session, and watch the secrets while it is open.

    Raises:
        ConfigError: The URL, a file or the secrets cannot be used.
    """
    slots = SlotDirectory(options.secrets_dir, parse_slot, source=metrics.service, observe=metrics.reloaded)
    metrics.watch(slots.expires_at)
    # The session has no slash at its end, and to a receiver with one it may be another place.
    slash = "/" if options.url.endswith("/") else ""
    async with (
        open_http(
            options.url,
            timeout_s=options.timeout_s,
            connections=options.lanes + 1,  # one for the ping
            headers=read_headers(options.headers_file),
            allow_http=options.allow_http,
            allowed_by=f"{variable(NAME, 'allow_http')}=true",
            ca_file=options.ca_file,
            cert_file=options.cert_file,
            key_file=options.key_file,
        ) as http,
        background(slots, drain_timeout_s=_CLOSE_S),
    ):
        passing = _NOT_THERE if "{" in options.path else ()
        yield Endpoint(http, slots, method=options.method, slash=slash, passing=passing, metrics=metrics, now=now)


def read_headers(file: Path | None) -> Mapping[str, str]:
    """Read `Name: value` lines; empty lines are passed over.

    Raises:
        ConfigError: It cannot be read, or a line is no header or one of ours; the message shows the name only.
    """
    if file is None:
        return {}
    try:
        lines = file.read_text(encoding="ascii").splitlines()
    except (OSError, UnicodeDecodeError):
        msg = f"forward.headers_file: cannot read {file}, or it is not ASCII"
        raise ConfigError(msg) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        name, colon, value = (part.strip() for part in line.partition(":"))
        name = name.lower()
        if not colon or not _is_name(name) or not value.isprintable() or name in found or _OURS.fullmatch(name):
            msg = (
                f"forward.headers_file: line {number} of {file} is no `Name: value`, comes twice, or is set by forward"
            )
            raise ConfigError(msg)
        found[name] = value
    return found
