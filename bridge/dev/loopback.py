"""Access check of the servers of the stack that show health information."""

from http import HTTPStatus

from aiohttp import web
from aiohttp.typedefs import Handler

from bridge.dev.ports import HOST


@web.middleware
async def loopback_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse other host names than loopback's, to prevent DNS rebinding by a web site."""
    if request.host.partition(":")[0] in {HOST, "localhost"}:
        return await handler(request)
    return web.Response(status=HTTPStatus.MISDIRECTED_REQUEST, text="only as 127.0.0.1 or localhost\n")
