"""The receiver for `forward` in `dev` and `demo`: verifies deliveries as any receiver must, and lists them.

`python -m bridge.dev.receiver PORT SECRETS_DIR`. A POST to any path is a delivery. `GET /received` lists the last
deliveries as JSON, oldest first, from memory. They hold health information, so it listens on loopback.
"""

import asyncio
import sys
import time
from collections import deque
from http import HTTPStatus
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from bridge.commands.schemas_serve import serve_app
from bridge.dev.loopback import loopback_only
from bridge.dev.ports import HOST
from bridge.errors import ConfigError, DeliveryRefusedError
from bridge.proof.scheme import Raw
from bridge.proof.schemes.standard_webhooks import StandardWebhooks
from bridge.proof.secrets import load

# Deliveries kept, of some 2 KB each.
KEPT = 1000
# Larger than any body of the contract: the ingress accepts 256 KiB.
_BODY_MAX_BYTES = 1024 * 1024
_SCHEME = StandardWebhooks()


def receiver_app(secrets_dir: Path) -> web.Application:
    """Return the receiver; it reads its secrets for each delivery, so that they can be rotated."""
    kept: deque[dict[str, Any]] = deque(maxlen=KEPT)

    async def take(request: web.Request) -> web.Response:
        body = await request.read()
        raw_headers = {name.lower(): value for name, value in request.raw_headers}
        try:
            _SCHEME.verify(Raw(raw_headers, body), load(secrets_dir, _SCHEME), time.time())
            refused = ""
        except (ConfigError, DeliveryRefusedError) as exc:
            refused = exc.code
        headers = {name.lower(): text for name, text in request.headers.items()}
        # A body with an invalid signature is not kept, since anybody may send any amount.
        text = "" if refused else body.decode("utf-8", "replace")
        kept.append({"refused": refused, "headers": headers, "body": text})
        return web.Response(status=HTTPStatus.UNAUTHORIZED if refused else HTTPStatus.NO_CONTENT)

    async def show(_: web.Request) -> web.Response:
        return web.Response(body=orjson.dumps([*kept]), content_type="application/json")

    app = web.Application(client_max_size=_BODY_MAX_BYTES, middlewares=[loopback_only])
    app.router.add_get("/received", show)
    app.router.add_post("/{path:.*}", take)
    return app


if __name__ == "__main__":
    asyncio.run(serve_app(receiver_app(Path(sys.argv[2])), HOST, int(sys.argv[1]), name="receiver"))
