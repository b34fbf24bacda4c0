"""What the servers of the stack that show health information have in common."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.dev.ports import HOST


@web.middleware
async def loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer only to a name of loopback: a site whose own name leads here would read the content otherwise."""
    if request.host.partition(":")[0] in {HOST, "localhost"}:
        return await handler(request)
    return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text="only as 127.0.0.1 or localhost\n")
