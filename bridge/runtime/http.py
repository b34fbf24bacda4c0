"""A hardened aiohttp server: constant error answers, bounds on what a client may hold, prepared answers, and a drain.

A client costs what has arrived from it, and that is bounded in four ways, none of which an honest sender meets:

- One request of a connection is parsed at a time. What was sent behind it waits unparsed, and meanwhile the connection
  is not read. The next one is parsed when the answer has left for the kernel, so that a client that sends and never
  reads fills the buffers of its own sockets.
- A connection has `read_timeout_s` for its first byte and head together, for each later head, for a body, and for
  taking an answer.
- Bytes of requests that are not whole are counted as they arrive. Over `reading_max_bytes` the connection that has held
  some for the longest is ended: an honest body is whole within a few round trips.
- Over `connections_max` a connection is ended for each new one: the oldest of those that have proved nothing and, where
  there is none, the one that has been idle for the longest.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import resource
import socket
from collections.abc import Awaitable, Callable, Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal, cast

import structlog
from aiohttp import HttpVersion10, hdrs, web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from bridge.errors import ConfigError
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import trail

log = structlog.get_logger()

JSON_TYPE = "application/json"
# How often slow and idle connections are looked at; a limit is kept to within one tick.
TICK_S = 1.0
# After a refusal that leaves a body unread, read on this long so that the sender sees the answer, not a reset.
LINGER_S = 2.0
# A head of ours is below 1 KiB, and no field of it is above 8 KiB; as nginx, which takes four buffers of 8 KiB.
HEAD_MAX_BYTES = 32_768
# Where the owner does not say: the management port.
CONNECTIONS_MAX = 256
READING_MAX_BYTES = 1_048_576
# Connections the kernel may hold before `accept`; Linux caps it by net.core.somaxconn (4096 since 5.4).
BACKLOG = 1024
# What the kernel holds for one connection which counts as memory of the pod: some hundred answers, a quarter of
# the largest usual body. By itself it would take up to 4 and 6 MiB (`tcp_wmem`, `tcp_rmem`), and one read 256 KiB: all
# connections may be read in one turn of the loop, before any that was ended in it lets go of what it held.
KERNEL_MAX_BYTES = 65_536
# Files that the process needs for all else: brokers, spool, secrets, probes.
FILES_SPARE = 256
# Where a chunked body ends otherwise, something stands behind it, or it has a trailer. The parser of aiohttp 3.14 keeps
# the last field of a trailer and adds it to the next request of the connection, behind a proxy that of another sender.
CHUNKED_END = b"\r\n0\r\n\r\n"
HEAD_END = b"\r\n\r\n"
# RFC 9112 3: one space on either side of the target. The parser would take more of them, and other versions or none.
_request_line = re.compile(rb"(?!CONNECT )[!-~]+ [!-~]+ HTTP/1\.[01]\r\n").match
# Only to know where a request ends before it is parsed: the parser refuses two lengths, or one beside a coding.
_content_length = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*\r\n", re.IGNORECASE).search

# Why the server ends a connection. The last three mean that a bound was met, not just that a client was slow.
Ended = Literal["silent", "slow_request", "unread_answer", "bodies_full", "too_many"]


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
        keep = not (self.close or message.should_close or protocol.ending or message.version < (1, 1))
        if not keep:
            protocol.close()
        body = b"" if message.method == "HEAD" else self._body
        transport.write(self._head + (b"\r\n\r\n" if keep else b"\r\nConnection: close\r\n\r\n") + body)
        await protocol.sent()

    async def write_eof(self) -> None:
        """Nothing is left to write."""


MALFORMED = Answer(400, b'{"outcome":"refused","code":"malformed_http"}', close=True)
FAILED = Answer(500, b'{"outcome":"unavailable","code":"internal_error"}', close=True)


class Connection(RequestHandler):
    """One client connection; never puts a byte of a request into an answer or a log line.

    Attributes:
        answered: Requests that were answered.
        last: Nothing that comes after the request under way is answered: the client has finished sending, or what has
            come is no HTTP, or the parser may have kept something of it.
        reading_since: Since when the first byte, or the rest of a head or body, is awaited; in the loop's time.
        writing_since: Since when the client has not taken an answer.
        trusted: It has carried a delivery that was proved.
    """

    __slots__ = (
        "_ahead",
        "_body",
        "_left",
        "_received",
        "_tail",
        "answered",
        "held",
        "last",
        "reading_since",
        "silent",
        "trusted",
        "writing_since",
    )

    def __init__(self, manager: HardenedServer, **kwargs: Any) -> None:
        self._ahead = b""  # an incomplete head, or what came behind the request under way
        self._left: float = 0  # bytes that are still to come of a body; infinite in a chunked one
        self._received = 0  # bytes of a request that is not whole
        self._body: Any = None  # aiohttp's stream of it, until it is whole
        self._tail = b""  # the last bytes of a chunked body
        self.answered = 0
        self.held = 0
        self.last = False
        self.reading_since: float | None = None
        self.writing_since: float | None = None
        self.silent = True
        self.trusted = False
        super().__init__(manager, **kwargs)
        self._msg_queue_resume_size = -1  # aiohttp must not read on while something waits unparsed

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Allow nothing but the answer that is being given in the buffer, and the first head its time."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        self.reading_since = self.clock()

    def connection_lost(self, exc: BaseException | None) -> None:
        """Give back what it held."""
        manager: Any = self._manager
        if manager is not None:
            manager.forget(self)
        self._ahead = b""
        super().connection_lost(exc)

    @property
    def ending(self) -> bool:
        """True when the next answer is the last of this connection."""
        manager: Any = self._manager
        return self.last or manager is None or bool(manager.draining)

    @property
    def idle(self) -> bool:
        """True where nothing of a request has come that was not answered."""
        waiting = self._waiter is not None and not self._waiter.done()
        return waiting and not self._ahead and not self._left

    @property
    def idle_until(self) -> float:
        """When an idle connection will have been so for too long."""
        return self._next_keepalive_close_time

    def clock(self) -> float:
        """The loop's time in seconds, by which the guard judges."""
        return self._loop.time()

    def trust(self) -> None:
        """Say that it has carried a delivery that was proved."""
        if not self.trusted:
            self.trusted = True
            manager: Any = self._manager
            if manager is not None:
                manager.strangers.pop(self, None)

    def data_received(self, data: bytes) -> None:
        """Take in one request; what comes behind it waits until that was answered."""
        if self._force_close or self._close or (self.last and data):
            return
        self.silent = False
        if not data:  # aiohttp has paused its parser, and has it go on now
            self._feed(data)
        seen = len(self._ahead)
        if seen:
            data, self._ahead = self._ahead + data, b""
        while data:
            if self._left:
                size = len(data) if len(data) <= self._left else int(self._left)
                self._left -= size
                self._received += size
                self._feed(data[:size])
                data = data[size:]
            elif self.answered < self._request_count:
                self._ahead = data
                self._pause_reading_for_buffer()
                break
            else:
                data = self._begin(data, seen)
                if self._ahead:
                    break
            seen = 0
        held = len(self._ahead) + (self._received if self._left else 0)
        if held or self.held:
            manager: Any = self._manager
            if manager is not None:
                manager.hold(self, held)

    def _begin(self, data: bytes, seen: int) -> bytes:
        """Take a head in, and as much of its body as is there; return what belongs to the next request."""
        if data.startswith(b"\r\n"):  # RFC 9112 2.2: an empty line before a request line is passed over
            data = data[2:]
        end = data.find(HEAD_END, max(0, seen - len(HEAD_END) + 1)) + len(HEAD_END)
        whole = end >= len(HEAD_END)
        if not whole and len(data) <= HEAD_MAX_BYTES:
            self._ahead = data
            self.reading_since = self.reading_since or self.clock()
            return b""
        if not whole or end > HEAD_MAX_BYTES or not _request_line(data):
            self._malformed()
            return b""
        declared = _content_length(data, 0, end)
        total = end + int(declared[1]) if declared else end
        before = self._request_count
        super().data_received(data if len(data) <= total else data[:total])
        if self._request_count == before:  # the parser waits for more of it than we do
            self._malformed()
            return b""
        message, payload = self._messages[-1]
        if isinstance(message, _ErrInfo):
            self.last = True
        elif message.chunked:
            self._begin_chunked(message, payload)
        elif hdrs.TRANSFER_ENCODING in message.headers:  # an empty one, which the parser passes over
            self._reject()
        elif declared or payload.is_eof():
            self._left = max(0, total - len(data))
            self._received = len(data) - end
            self._body = payload if self._left else None
        else:  # a length of more digits than any body has: all that comes belongs to it
            self._left, self._received, self._body, self._tail = math.inf, 0, payload, CHUNKED_END[:2]
        self.reading_since = self.clock() if self._left else None
        self._refresh()
        return data[total:]

    def _begin_chunked(self, message: Any, payload: Any) -> None:
        # RFC 9112 6.1: no coding but chunked is ours, and in HTTP/1.0 there is none.
        codings = ",".join(message.headers.getall(hdrs.TRANSFER_ENCODING)).lower()
        if codings != "chunked" or message.version == HttpVersion10:
            self._reject()
        else:
            self._left, self._received, self._body, self._tail = math.inf, 0, payload, CHUNKED_END[:2]

    def _reject(self) -> None:
        """Take back a request that the parser has found good."""
        self._messages.pop()
        self._request_count -= 1
        self._malformed()

    def _refresh(self) -> None:
        """Let a stranger that has sent a head have its answer before it has to make room for another."""
        manager: Any = self._manager
        if not self.trusted and manager is not None:
            manager.refresh(self)

    def _malformed(self) -> None:
        """Have what has come answered as no HTTP request, and nothing of what follows read as one."""
        self.reading_since = None
        self.last = True
        self._request_count += 1
        self._messages.append((_ErrInfo(400, HttpProcessingError(), ""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _feed(self, data: bytes) -> None:
        """Feed a part of a body to the parser, and see whether the body is whole."""
        before = self._request_count
        super().data_received(data)
        if self._left != math.inf:
            if not self._left:
                self._body = self.reading_since = None
            return
        self._tail = (self._tail + data)[-len(CHUNKED_END) :]
        behind = self._request_count - before
        for _ in range(behind):
            self._messages.pop()
        self._request_count = before
        body = self._body
        if body.is_eof():
            self.last = self.last or bool(behind) or self._tail != CHUNKED_END
            self._left, self._body, self.reading_since = 0, None, None
        elif behind:  # no message, but the parser's complaint about the body
            self._left, self._body, self.reading_since, self.last = 0, None, None, True
            body.set_exception(HttpProcessingError())

    async def sent(self) -> None:
        """Wait until the kernel has taken the answer, and go on with what the client has sent meanwhile."""
        if self._paused:
            self.writing_since = self.clock()
            await self._drain_helper()
            self.writing_since = None
        self.answered += 1
        if self._ahead and not self._close:
            data, self._ahead = self._ahead, b""
            self._resume_reading_for_buffer()
            self.data_received(data)

    def eof_received(self) -> bool:  # type: ignore[override]  # asyncio asks for a truth value; aiohttp gives None
        """Keep a connection open for its answer when the client has only finished sending."""
        self.last = True
        if self._body is not None:  # the rest of it will not come, but what is wrong with the head can be answered
            self._body.set_exception(HttpProcessingError())
            self._left, self._body, self.reading_since = 0, None, None
        # Not whether it is idle: right after an answer aiohttp's task has not begun to wait again.
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
        if isinstance(exc, ConnectionError):  # the client, or the guard, has ended it amid a body
            return MALFORMED
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
        fault = kwargs.get("exc_info")
        client = isinstance(fault, ConnectionError | HttpProcessingError)
        if isinstance(fault, BaseException) and not client:
            log.error("worker.http_failed", code=type(fault).__name__, where=trail(fault))


class HardenedServer(web.Server):
    """Makes `Connection`s, ends those that cost too much, and drains."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Answer]],
        *,
        read_timeout_s: float,
        keepalive_s: float,
        connections_max: int = CONNECTIONS_MAX,
        reading_max_bytes: int = READING_MAX_BYTES,
        on_malformed: Callable[[], None] = lambda: None,
        on_ended: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        """Serve every request with `handler`; say what was no request, and why a connection was ended."""
        super().__init__(
            handler,  # type: ignore[arg-type]  # aiohttp asks for a StreamResponse, but calls only what Answer has
            keepalive_timeout=keepalive_s,
            lingering_time=LINGER_S,
            auto_decompress=False,
            access_log=None,
        )
        self.draining = False
        self.on_malformed = on_malformed
        self.held_bytes = 0
        # Both in the order of arrival: of the connection, and of what it holds.
        self.strangers: dict[Connection, None] = {}
        self._holders: dict[Connection, None] = {}
        self._on_ended = on_ended
        self._read_timeout_s = read_timeout_s
        self._connections_max = connections_max
        self._reading_max_bytes = reading_max_bytes

    def __call__(self) -> RequestHandler:
        """Make the protocol of a new connection."""
        return Connection(self, loop=self._loop, **self._kwargs)

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """Have another one make room where there are too many."""
        super().connection_made(handler, transport)
        newcomer = cast("Connection", handler)
        # Those that were ended in this turn of the loop are still counted, and so are the new ones they made room for.
        if len(self._connections) > self._connections_max:
            self._make_room(newcomer)
        self.strangers[newcomer] = None

    def _make_room(self, newcomer: Connection) -> None:
        if self.strangers:
            self.end(next(iter(self.strangers)), "too_many")
            return
        open_ones = [each for each, transport in self._connections.items() if not transport.is_closing()]
        idle = [each for each in open_ones if isinstance(each, Connection) and each.idle]
        self.end(min(idle, key=lambda each: each.idle_until, default=newcomer), "too_many")

    def hold(self, connection: Connection, size: int) -> None:
        """Note that a connection has sent `size` bytes of requests that are not whole, or not their turn."""
        self.held_bytes += size - connection.held
        connection.held = size
        if not size:
            self._holders.pop(connection, None)
            return
        self._holders[connection] = None
        # One alone may hold more, or a body of the largest size allowed might never come in.
        while self.held_bytes > self._reading_max_bytes and len(self._holders) > 1:
            self.end(next(iter(self._holders)), "bodies_full")

    def end(self, connection: Connection, reason: Ended) -> None:
        """Reset a connection."""
        self.forget(connection)
        if connection.transport is not None:
            self._on_ended(reason)
            connection.transport.abort()

    def refresh(self, stranger: Connection) -> None:
        """Count a stranger as the newest."""
        if stranger in self.strangers:
            del self.strangers[stranger]
            self.strangers[stranger] = None

    def forget(self, connection: Connection) -> None:
        """Count a connection no more."""
        self.strangers.pop(connection, None)
        self.hold(connection, 0)

    @property
    def open_connections(self) -> int:
        """Connections that are open now; a lost one may still have a delivery under way."""
        return sum(connection.transport is not None for connection in self._connections)

    async def serve(self, host: str, port: int, *, stop: asyncio.Event, drain_s: float, section: str = "http") -> None:
        """Accept until `stop` is set, then answer what is in flight and close; the address is from `section`.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        self._connections_max = min(self._connections_max, _connections_possible(self._connections_max))
        try:
            listener = await self._loop.create_server(self, host, port, backlog=BACKLOG)
        except OSError as exc:
            why = "no such host" if isinstance(exc, socket.gaierror) else os.strerror(exc.errno or 0)
            msg = f"{section}.host, {section}.port: cannot listen on {host}:{port} ({why}); choose another"
            raise ConfigError(msg) from None
        for each in listener.sockets:  # connections inherit it
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_MAX_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_MAX_BYTES)
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
        """Every tick, end the connections that have been waited for too long."""
        while await pause(stop, TICK_S):
            self._end_slow(self._loop.time() - self._read_timeout_s)

    def _end_slow(self, limit: float) -> None:
        for connection in [each for each in self._connections if isinstance(each, Connection)]:
            if connection.reading_since is not None and connection.reading_since < limit:
                self.end(connection, "silent" if connection.silent else "slow_request")
            elif connection.writing_since is not None and connection.writing_since < limit:
                self.end(connection, "unread_answer")

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


def _connections_possible(wanted: int) -> int:
    """Have as many files as that takes, where it is allowed, and return how many connections they suffice for.

    Up to `BACKLOG` are accepted before any of those that make room for them is closed.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = wanted + BACKLOG + FILES_SPARE
    if soft != resource.RLIM_INFINITY and soft < (needed := min(hard, wanted + BACKLOG + FILES_SPARE)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        soft = needed
    return wanted if soft == resource.RLIM_INFINITY else max(soft - BACKLOG - FILES_SPARE, soft // 2)


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
