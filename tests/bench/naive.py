"""The control: what a team would write in an afternoon. No proof, no schema, no limits, no log line.

Run as `python -m tests.bench.naive PORT BOOTSTRAP_SERVERS TOPIC`.
"""

from __future__ import annotations

import sys

from aiohttp import web
from aiokafka import AIOKafkaProducer  # noqa: TID251 - the control stands beside the bridge, not in it

PRODUCER = web.AppKey("producer", AIOKafkaProducer)
TOPIC = web.AppKey("topic", str)


async def take(request: web.Request) -> web.Response:
    """Put the body into the topic and say so."""
    await request.app[PRODUCER].send_and_wait(request.app[TOPIC], await request.read())
    return web.Response(text="ok")


async def ready(_: web.Request) -> web.Response:
    """Say that it serves."""
    return web.Response(text="ok")


def main(port: str, bootstrap_servers: str, topic: str) -> None:
    """Serve until SIGTERM."""

    async def start(app: web.Application) -> None:
        app[PRODUCER] = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", enable_idempotence=True)
        await app[PRODUCER].start()

    async def end(app: web.Application) -> None:
        await app[PRODUCER].stop()

    app = web.Application()
    app[TOPIC] = topic
    app.router.add_post("/webhooks/{source}", take)
    app.router.add_get("/", ready)
    app.on_startup.append(start)
    app.on_cleanup.append(end)
    web.run_app(app, host="127.0.0.1", port=int(port), access_log=None, print=None)


if __name__ == "__main__":
    main(*sys.argv[1:])
