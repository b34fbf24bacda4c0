"""The control: the simplest service of a team. No schema, deduplication, limits, spool or log lines.

Run as `python -m tests.bench.naive PORT BOOTSTRAP_SERVERS TOPIC`. It checks the signature and keeps the order of each
prescription by its key.
"""

import base64
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Mapping

from aiohttp import web
from aiokafka import AIOKafkaProducer  # noqa: TID251 - the control stands beside the bridge, not in it

from tests.bench.traffic import HMAC_KEY

PRODUCER = web.AppKey("producer", AIOKafkaProducer)
TOPIC = web.AppKey("topic", str)
# What Standard Webhooks recommends.
TOLERANCE_S = 300


async def take(request: web.Request) -> web.Response:
    """Check the signature, write the body to the topic under its prescription, and respond."""
    body = await request.read()
    if not is_signed(request.headers, body):
        return web.Response(status=401)
    key = json.loads(body)["data"]["prescription_id"].encode()
    await request.app[PRODUCER].send_and_wait(request.app[TOPIC], body, key=key)
    return web.Response(text="ok")


def is_signed(headers: Mapping[str, str], body: bytes) -> bool:
    """Check one delivery as shown in the documentation of Standard Webhooks."""
    sent_at = headers["webhook-timestamp"]
    if abs(time.time() - int(sent_at)) > TOLERANCE_S:
        return False
    content = f"{headers['webhook-id']}.{sent_at}.".encode() + body
    expected = base64.b64encode(hmac.new(HMAC_KEY, content, hashlib.sha256).digest()).decode()
    return any(
        hmac.compare_digest(signature.removeprefix("v1,"), expected)
        for signature in headers["webhook-signature"].split(" ")
    )


def main(port: str, bootstrap_servers: str, topic: str) -> None:
    async def start(app: web.Application) -> None:
        app[PRODUCER] = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
        await app[PRODUCER].start()

    async def end(app: web.Application) -> None:
        await app[PRODUCER].stop()

    app = web.Application()
    app[TOPIC] = topic
    app.router.add_post("/webhooks/{source}", take)
    app.on_startup.append(start)
    app.on_cleanup.append(end)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
