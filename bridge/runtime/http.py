"""A hardened aiohttp server: constant error answers, bounded reads, prepared bytes for answers, and a drain."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from bridge.errors import ConfigError
from bridge.runtime.lifecycle import pause

log = structlog.get_logger()

JSON_TYPE = "application/json"
# How often slow and idle connections are looked at; a limit is kept to within one tick.
TICK_S = 1.0
# After a refusal that leaves a body unread, read on this long so that the sender sees the answer, not a reset.
LINGER_S = 2.0
# Connections the kernel may hold before `accept`; Linux caps it by net.core.somaxconn (4096 since 5.4).
BACKLOG = 1024


@lru_cache(maxsize=1024)
def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode("ascii")


class Answer:
    """A whole HTTP answer as prepared bytes, written in one piece.

    A `web.Response` costs 70 µs of CPU more; for small constant answers there is nothing in it that we need.
    """

    __slots__ = ("_body", "_head", "close", "status")

    # One object may serve many requests, so what ends one connection is said to that connection, never kept here.
    keep_alive = True

    def __init__(
        self,
        status: int,
        body: bytes,
        *,
        content_type: str = JSON_TYPE,
        headers: tuple[tuple[str, str], ...] = (),
        close: bool = False,
    ) -> None:
        """Prepare the head; `close` ends the connection after this answer."""
        self._head = _head(status, content_type, headers, len(body))
        self._body = body
        self.status = status
        self.close = close

    async def prepare(self, request: web.BaseRequest) -> None:
        """Write the answer; aiohttp calls this once for each request."""
        protocol: Any = request._protocol  # noqa: SLF001 - aiohttp has no public way to it from a BaseRequest
        transport = protocol.transport
        if transport is None:
            raise ConnectionResetError
        message = request._message  # noqa: SLF001 - as above
        protocol.reading_since = None
        protocol.answered += 1
        keep = not (self.close or message.should_close or protocol.ending or message.version < (1, 1))
        if not keep:
            protocol.close()
        body = b"" if message.method == "HEAD" else self._body
        transport.write(self._head + (b"\r\n\r\n" if keep else b"\r\nConnection: close\r\n\r\n") + body)

    async def write_eof(self) -> None:
        """Nothing is left to write."""


MALFORMED = Answer(400, b'{"outcome":"refused","code":"malformed_http"}', close=True)
FAILED = Answer(500, b'{"outcome":"unavailable","code":"internal_error"}', close=True)


class Connection(RequestHandler):
    """One client connection; never puts a byte of a request into an answer or a log line."""

    __slots__ = ("answered", "half_closed", "reading_since")

    def __init__(self, manager: HardenedServer, **kwargs: Any) -> None:
        """Start with nothing half read."""
        self.answered = 0
        self.half_closed = False
        self.reading_since: float | None = None
        super().__init__(manager, **kwargs)

    @property
    def ending(self) -> bool:
        """True when the next answer is the last of this connection."""
        manager: Any = self._manager
        return self.half_closed or manager is None or bool(manager.draining)

    @property
    def waiting(self) -> bool:
        """True while no complete head is there to be answered."""
        return self._waiter is not None and not self._waiter.done()

    @property
    def idle(self) -> bool:
        """True between two requests."""
        return self.waiting and self.reading_since is None

    def clock(self) -> float:
        """The loop's time in seconds, by which the guard judges."""
        return self._loop.time()

    def data_received(self, data: bytes) -> None:
        """Feed the parser and note since when a head is incomplete."""
        before = self._request_count
        super().data_received(data)
        if self._request_count != before:
            self.reading_since = None
        elif self.reading_since is None and self._current_request is None and not self._messages:
            # Not `waiting`: a head that comes with the connect is here before aiohttp's task has begun to wait.
            self.reading_since = self.clock()

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for a truth value; aiohttp gives None
        """Keep a connection open for its answer when the client has only finished sending."""
        self.half_closed = True
        # Not `waiting`: right after an answer aiohttp's task has not begun to wait again.
        return self.reading_since is None and self.answered < self._request_count

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> Any:
        """Answer with a constant body: aiohttp would echo the malformed header."""
        del request, message
        if isinstance(exc, HttpProcessingError) or status == HTTPStatus.BAD_REQUEST:
            manager: Any = self._manager
            if manager is not None:
                manager.on_malformed()
            return MALFORMED
        self.log_exception(exc_info=exc)
        return FAILED

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """Log the type alone: the texts of aiohttp carry header values."""
        del args
        log.error("worker.http_failed", code=type(kwargs.get("exc_info")).__name__)


class HardenedServer(web.Server):
    """Makes `Connection`s, closes slow ones, and drains."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Answer]],
        *,
        read_timeout_s: float,
        keepalive_s: float,
        on_malformed: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve every request with `handler`, and tell `on_malformed` of what is none."""
        super().__init__(
            handler,  # type: ignore[arg-type]  # aiohttp asks for a StreamResponse, but calls only what Answer has
            keepalive_timeout=keepalive_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self.draining = False
        self.on_malformed = on_malformed
        self._read_timeout_s = read_timeout_s

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    @property
    def open_connections(self) -> int:
        """Connections that are open now; a lost one may still have a delivery under way."""
        return sum(connection.transport is not None for connection in self._connections)

    async def serve(self, host: str, port: int, *, stop: asyncio.Event, drain_s: float, section: str = "http") -> None:
        """Accept until `stop` is set, then answer what is in flight and close; the address is from `section`.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        try:
            listener = await self._loop.create_server(self, host, port, backlog=BACKLOG)
        except OSError as exc:
            why = "no such host" if isinstance(exc, socket.gaierror) else os.strerror(exc.errno or 0)
            msg = f"{section}.host, {section}.port: cannot listen on {host}:{port} ({why}); choose another"
            raise ConfigError(msg) from None
        try:
            await self._guard(stop)
        finally:
            self.draining = True
            waiting = _accept_all(listener.sockets)
            listener.close()
            for accepted in waiting:
                with contextlib.suppress(OSError):  # gone by itself meanwhile
                    await self._loop.connect_accepted_socket(self, accepted)
            await self._drain(drain_s)

    async def _guard(self, stop: asyncio.Event) -> None:
        """Every tick, end the connections whose head or body has been incomplete for too long."""
        while await pause(stop, TICK_S):
            self._end_slow(self._loop.time() - self._read_timeout_s)

    def _end_slow(self, limit: float) -> None:
        for connection, transport in list(self._connections.items()):
            since = connection.reading_since if isinstance(connection, Connection) else None
            if since is not None and since < limit:
                transport.abort()

    async def _drain(self, drain_s: float) -> None:
        """Close idle connections, let the others give their answer, then close those too."""
        deadline = self._loop.time() + drain_s
        idle: set[Connection] = set()
        while self._connections and self._loop.time() < deadline:
            before, idle = idle, {each for each in self.connections if isinstance(each, Connection) and each.idle}
            for connection in idle & before:  # at first sight its request may have come and not been read yet
                connection.force_close()
            await asyncio.sleep(0.02)  # connections end by callbacks of the loop; there is no event to wait for
        await self.shutdown(timeout=TICK_S)


def _accept_all(listeners: Iterable[Any]) -> list[socket.socket]:
    """Take the connections that the kernel holds for us: it would reset them when the listeners close."""
    accepted: list[socket.socket] = []
    for listener in listeners:
        with socket.socket(fileno=os.dup(listener.fileno())) as own, contextlib.suppress(OSError):
            own.settimeout(0)
            while len(accepted) < BACKLOG:
                accepted.append(own.accept()[0])
    for each in accepted:
        each.settimeout(0)
    return accepted
