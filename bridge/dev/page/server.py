"""The server of the page, on loopback only: `python -m bridge.dev.page.server PORT DATA_DIR [--show-phi]`."""

import asyncio
import contextlib
import sys
from pathlib import Path

import orjson
from aiohttp import web

from bridge.avro.event_decoder import open_decoder
from bridge.commands.schemas_serve import serve_app
from bridge.dev.files import DataDirectory
from bridge.dev.loopback import loopback_only
from bridge.dev.page.feed import Feed
from bridge.dev.page.views import Views
from bridge.dev.ports import HOST
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from bridge.registry.address import RegistryAddress
from bridge.runtime.audit import audited
from bridge.runtime.logging import silence_kafka_client

TICK_S = 0.25


def page_app(feed: Feed, views: Views) -> web.Application:
    """Return the web application: static files, sections as JSON, and changes as server-sent events."""

    async def file(request: web.Request) -> web.FileResponse:
        return web.FileResponse(Path(__file__).with_name(request.path[1:] or "page.html"))

    async def live(request: web.Request) -> web.StreamResponse:
        """Send changes at each tick, until the browser disconnects."""
        wanted = {name: request.query.get(name, "") for name in ("source", "outcome", "kind")}
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        version = 0
        with contextlib.suppress(ConnectionError):
            while True:
                rows, version = feed.changed(version, **wanted), feed.version
                news = orjson.dumps({"rows": rows, "total": feed.total, "state": await views.state()})
                await response.write(b"data: " + news + b"\n\n")
                await asyncio.sleep(TICK_S)
        return response

    async def sections(request: web.Request) -> web.Response:
        found = await shown[request.path](request.query.get("id", ""))
        return web.Response(body=orjson.dumps(found), content_type="application/json")

    shown = {"/delivery": views.delivery, "/prescription": views.prescription, "/waiting": views.waiting}
    app = web.Application(middlewares=[loopback_only])
    app.on_response_prepare.append(_with_headers)
    for handler, paths in ((file, ("/", "/page.css", "/page.js")), (live, ("/live",)), (sections, shown)):
        app.router.add_routes([web.get(path, handler) for path in paths])
    return app


async def _with_headers(_: web.Request, response: web.StreamResponse) -> None:
    policy = "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    response.headers.update({"Content-Security-Policy": policy, "X-Content-Type-Options": "nosniff"})
    response.headers["Cache-Control"] = "no-store"


async def serve(port: int, directory: DataDirectory, *, show_phi: bool) -> None:
    """Serve until SIGTERM."""
    feed = Feed(directory)
    async with open_decoder(RegistryAddress()) as decoder, asyncio.TaskGroup() as group:
        views = Views(directory, feed, decoder, show_phi=show_phi)
        topics = (PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC, UNRECOGNIZED_TOPIC)
        tasks = [group.create_task(each) for each in (feed.follow_log(), *map(feed.follow_topic, topics))]
        await serve_app(page_app(feed, views), HOST, port, name="page")
        for task in tasks:
            task.cancel()


if __name__ == "__main__":
    silence_kafka_client()
    is_shown = "--show-phi" in sys.argv
    with audited("page", dry_run=not is_shown, show_phi=True):
        asyncio.run(serve(int(sys.argv[1]), DataDirectory(Path(sys.argv[2])), show_phi=is_shown))
