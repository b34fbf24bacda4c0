"""A consumer for a vendor with thin webhooks: it reads the named resource and posts it to the bridge.

The source `acme_thin` receives the pushes; its mapping file makes each `other.reported` of the prescription it names.
The source `acme` receives the resources, signed as Standard Webhooks; its mapping file makes events of them. Both have
one `prefix`, so a prescription has one key. A push is settled once the bridge has responded 2xx. It is retried while a
server is unavailable or the resource is missing (404), until an operator skips it.

    [project.entry-points."drx_bridge.consumers"]
    fetch = "fetch:open_fetch"

    CONSUMER_FETCH__SOURCE=acme_thin
    CONSUMER_FETCH__API=https://api.acme.example/v1/prescriptions
    CONSUMER_FETCH__TOKEN_FILE=/etc/fetch/token
    CONSUMER_FETCH__BRIDGE=https://bridge.example/webhooks/acme
    CONSUMER_FETCH__SECRET_FILE=/etc/fetch/secret      # of `drx-bridge secrets new acme --slot fetch`
"""

import hmac
import time
from base64 import b64decode, b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from bridge.errors import PermanentError
from bridge.event import Event
from consumers.api import Consumer, Context, Lanes, Setup
from consumers.http import HttpClient, open_http

RESOURCE_MAX_BYTES = 256 * 1024  # the bound of the bridge on a body


class Ends(NamedTuple):
    """Clients of the vendor's API and of the bridge."""

    api: HttpClient
    bridge: HttpClient


def open_fetch(setup: Setup) -> Consumer:
    """Build the consumer from its settings."""
    options = setup.options
    secret = b64decode(Path(options["secret_file"]).read_text().split()[0].removeprefix("whsec_"))
    token = Path(options["token_file"]).read_text().strip()
    plain = options.get("allow_http") == "true"

    @asynccontextmanager
    async def around() -> AsyncIterator[Ends]:
        bearer = {"authorization": f"Bearer {token}"}
        reading = open_http(options["api"], headers=bearer, allow_http=plain, response_max_bytes=RESOURCE_MAX_BYTES + 1)
        async with reading as api, open_http(options["bridge"], allow_http=plain) as bridge:
            yield Ends(api, bridge)

    async def handle(event: Event, context: Context) -> None:
        if event.source != options["source"]:
            return
        ends: Ends = context.resource
        number = event.key.partition(":")[2]
        resource = await ends.api.request("GET", f"/{quote(number, safe='')}")
        if len(resource.body) > RESOURCE_MAX_BYTES:
            raise PermanentError("resource_too_large")
        await ends.bridge.post("", resource.body, headers=signed(event, resource.body, secret))

    return Consumer(
        name="fetch",
        topics=["drx.prescriptions.v1"],
        types=["other.reported"],
        mode=Lanes(8),
        around=around,
        ping=ping,
        discloses=[f"ids of prescriptions: {options['api']}"],
        handle=handle,
    )


async def ping(ends: Ends) -> None:
    """Ping both."""
    await ends.api.ping()
    await ends.bridge.ping()


def signed(event: Event, body: bytes, secret: bytes) -> dict[str, str]:
    """Sign by Standard Webhooks; the same webhook with the same resource is the same delivery."""
    webhook_id = sha256(event.id.encode() + b"\0" + body).hexdigest()
    timestamp = str(int(time.time()))
    mac = hmac.digest(secret, b".".join((webhook_id.encode(), timestamp.encode(), body)), "sha256")
    signature = f"v1,{b64encode(mac).decode()}"
    return {"webhook-id": webhook_id, "webhook-timestamp": timestamp, "webhook-signature": signature}
