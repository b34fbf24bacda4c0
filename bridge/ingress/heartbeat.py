"""Send heartbeat events through the public port, under the same conditions as senders."""

import asyncio
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http import HTTPStatus
from ipaddress import ip_address
from uuid import uuid4

import aiohttp
import orjson
from prometheus_client import Gauge

from bridge.ingress.call import Source
from bridge.mapping import drx_standard
from bridge.proof.scheme import FixedSecrets, HmacKey, KeySlot
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log
from bridge.runtime.signing_secret import sign

# No configured source can have this prefix.
SOURCE = "_heartbeat"
EVENT_TYPE = "system.ping"
KEY_BYTES = 32  # as long as a SHA-256 digest
TOLERANCE_S = 60  # signed and verified by the same clock


class Heartbeat:
    """A worker that posts a `system.ping` once a period; its key exists in this process only."""

    def __init__(
        self,
        *,
        host: str,
        port: int,
        environment: str,
        account_id: str,
        every_s: float,
        timeout_s: float,
        seen: Gauge,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Create the source of heartbeats; the first event is sent after one period.

        A wildcard `host` is reached over loopback. `seen` is set to the time of the last delivery whose response was
        `accepted`: committed to Kafka.
        """
        self._key = secrets.token_bytes(KEY_BYTES)
        slot = KeySlot("current", HmacKey(self._key))
        self.source = Source(
            name=SOURCE,
            environment=environment,
            profile=drx_standard,
            scheme=StandardWebhooks(TOLERANCE_S),
            secrets=FixedSecrets((slot,)),
            internal=True,
        )
        self._url = f"http://{reachable(host)}:{port}/webhooks/{SOURCE}"
        self._account_id = account_id
        self._every_s = every_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._seen = seen
        self._now = now
        self._failure = ""
        # Initially now, so that a process without any successful heartbeat is noticed, too.
        seen.set(now())

    async def run(self, stop: asyncio.Event) -> None:
        """Post once a period until `stop` is set."""
        while await pause(stop, self._every_s):
            await self._beat()

    async def _beat(self) -> None:
        code = await self._deliver()
        if not code:
            self._seen.set(self._now())
        elif code != self._failure:
            log.warning("worker.heartbeat_failed", code=code, address=self._url)
        self._failure = code

    async def _deliver(self) -> str:
        """Return an empty string, or a code why the event may not be in Kafka."""
        webhook_id, at = f"hb_{uuid4().hex}", self._now()
        body = orjson.dumps(self._document(webhook_id, at))
        headers = {
            "content-type": "application/json",
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(at)),
            "webhook-signature": sign(webhook_id, int(at), body, key=self._key),
        }
        try:
            # A new connection each time: an idle one would count as a sender's, and have to be closed at shutdown.
            async with (
                aiohttp.ClientSession(timeout=self._timeout) as session,
                session.post(self._url, data=body, headers=headers) as response,
            ):
                return "" if response.status == HTTPStatus.OK else f"status_{response.status}"
        except (aiohttp.ClientError, TimeoutError) as exc:
            return type(exc).__name__

    def _document(self, webhook_id: str, at: float) -> dict[str, object]:
        return {
            "id": webhook_id,
            "type": EVENT_TYPE,
            "version": "1",
            "timestamp": datetime.fromtimestamp(at, UTC),
            "environment": self.source.environment,
            "account_id": self._account_id,
            "data": {"message": "heartbeat"},
        }


def reachable(host: str) -> str:
    """Return the URL host to reach a listening address by."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.is_unspecified:
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")  # noqa: PLR2004 - the Internet Protocol's
    return str(address) if address.version == 4 else f"[{address}]"  # noqa: PLR2004 - as above
