"""aiohttp's server, hardened for a public port: bounds, time limits, constant errors, batching, drain.

If the body of a request has not arrived with its headers, `Handler.check` may respond from the headers alone. This
ends the connection, since nothing is read after an unread body. Complete requests are passed to `Handler.take`, up to
32 of one event loop iteration together. Responses of one iteration are written together in the next.

A client uses memory only for bytes that it has sent. Four bounds limit that; regular senders do not reach them:

- A few requests of a connection are parsed ahead; then reading pauses. Each is served once the kernel has the previous
  response, so that a client that never reads only fills the buffers of its own sockets.
- A connection has `read_timeout_s` for its first byte, for the headers, for a body, and to accept a response.
- Bytes of incomplete requests are counted as they arrive. Above `reading_max_bytes`, the connection that has held some
  for the longest is ended: regular bodies are complete within a few round trips.
- Above `connections_max`, each new connection ends the oldest one without a request in progress, first of those that
  have not delivered a new verified delivery. A replayed capture does not count as new.

No other module uses aiohttp's server. ADR 9 lists the faults worked around here, and the private names used.
"""

import asyncio
import math
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from http import HTTPStatus
from itertools import accumulate, chain
from typing import Any, Literal, Protocol, cast

from aiohttp import web_protocol, web_request, web_server  # importing `aiohttp.web` takes 1 MiB more
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion10, HttpVersion11
from aiohttp.streams import EMPTY_PAYLOAD

from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log, trail
from bridge.runtime.sockets import accept_all, allow_connections, listen

TICK_S = 1.0  # between two checks for slow connections; the precision of time limits
LINGER_S = 2.0  # for a client to read a response before a close with an unread body, which resets the connection
KEEPALIVE_S = 75.0  # longer than load balancers' (60 s of nginx and AWS): they must close first
TURN_MAX, TURN_MAX_BYTES = 32, 1_048_576  # requests and bytes taken together: 10 ms with two ed25519 signatures
AHEAD_MAX = 2  # requests parsed ahead before reading pauses; each takes kilobytes, aiohttp allows 32
# Bytes parsed at a time, and chunk framing allowed in excess of an eighth of the content. A sender has the whole body
# before it signs it, and libraries send chunks of a kilobyte or more.
PIECE_BYTES, FRAMING_MAX_BYTES, FRAMING_SHARE = 8_192, 4_096, 8
CHUNKED_END = b"\r\n0\r\n\r\n"  # the usual end of a chunked body; any other may have a trailer
HEAD_BYTES = 32_768  # slack in held bytes per request: its headers, and the beginning of the next one
LENGTH_DIGITS = 18  # digits of a Content-Length: more than any body needs, and `int` refuses thousands
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Why the server ends a connection. The last three mean that a bound was reached, not only that a client was slow.
Ended = Literal["silent", "slow_request", "unread_answer", "bodies_full", "too_many"]

JSON_TYPE = "application/json"
Headers = tuple[tuple[str, str], ...]


@lru_cache(maxsize=1024)
def _head(status: int, content_type: str, headers: Headers, length: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, f"Content-Length: {length}"]).encode("ascii")


class Response:
    """A prepared response for aiohttp; one object may serve many requests. `close` ends the connection."""

    __slots__ = ("body", "close", "head", "status")
    keep_alive = True  # `prepare` ends the connection if needed

    def __init__(
        self, status: int, body: bytes, *, content_type: str = JSON_TYPE, headers: Headers = (), close: bool = False
    ) -> None:
        self.head = _head(status, content_type, headers, len(body))
        self.body, self.status, self.close = body, status, close

    async def prepare(self, request: "Request") -> None:
        """Write the response; wait until the kernel has it or, before a close, until the client may have read it."""
        connection = request.connection
        if (transport := connection.transport) is None:
            raise ConnectionResetError
        end = b"\r\nConnection: close\r\n\r\n" if (is_last := request.is_last or self.close) else b"\r\n\r\n"
        transport.write(self.head + end + (b"" if request.method == "HEAD" else self.body))
        connection.is_serving = False
        if is_last:
            connection.close()  # further input is dropped
            connection.drop()
        if connection.writing_paused:
            connection.wait("unread_answer")
            await request.writer.drain()
        connection.is_busy = False
        connection.wait("slow_request" if connection.held else None)
        if is_last and not request.content.is_eof() and not connection.is_finished:
            transport.resume_reading()
            await asyncio.sleep(LINGER_S)

    async def write_eof(self) -> None:
        """Do nothing: `prepare` has sent the whole response."""


MALFORMED = Response(400, b'{"outcome":"refused","code":"malformed_http"}', close=True)
FAILED = Response(500, b'{"outcome":"unavailable","code":"internal_error"}', close=True)


class Request(web_request.BaseRequest):
    """One request, with one response; the handler is not affected if the client disconnects."""

    def __init__(self, message: Any, payload: Any, protocol: Any, writer: Any, task: Any) -> None:
        super().__init__(message, payload, protocol, writer, task, loop := asyncio.get_running_loop())
        self.connection: ClientConnection = protocol
        self.connection.is_serving = True
        self.connection.is_busy = payload.is_eof()  # its handler may begin an iteration later
        self.began = time.perf_counter()  # when its headers were complete, by `time.perf_counter`
        self.response: asyncio.Future[Response] = loop.create_future()
        self.body = b""  # complete in `Handler.take`, unless it is larger than the server accepts
        self.note: Any = None  # set by the handler in `check`, for `take`
        self.is_last = True  # its response ends the connection

    @property
    def path(self) -> str:
        """Path of the target as sent; aiohttp's is decoded."""
        target = self.raw_path
        return target.partition("?")[0] if target.startswith("/") else self.rel_url.raw_path

    def trust(self) -> None:
        """Note that the connection has carried a new verified delivery."""
        self.connection.is_trusted = True

    def invite(self) -> None:
        """Send 100 Continue for an announced body; not to HTTP/1.0, which lacks it (RFC 9110 10.1.1)."""
        if self.version >= HttpVersion11 and self.transport is not None:
            self.transport.write(CONTINUE)

    def respond(self, response: Response) -> None:
        """Set the response unless one is set already; does nothing if the client has disconnected."""
        if not self.response.done():
            self.response.set_result(response)

    def fail(self, exc: BaseException) -> None:
        """Respond with 500 for a bug."""
        self.respond(self.connection.handle_error(self, exc=exc))

    @property
    def is_plain(self) -> bool:
        """Whether the version is supported, and the transfer coding is only chunked (RFC 9112 6.1)."""
        length, codings = self.headers.get("Content-Length", ""), self.headers.getall("Transfer-Encoding", ())
        if codings:
            return self.version == HttpVersion11 and ",".join(codings).lower() == "chunked"
        return self.version in (HttpVersion11, HttpVersion10) and len(length) <= LENGTH_DIGITS


class Handler(Protocol):
    """Responds to requests by `Request.respond`, once each; an exception becomes a 500."""

    def check(self, request: Request, /) -> Response | None:
        """Return a response from the headers alone, before the body arrives; None to receive the body."""

    def take(self, requests: Sequence[Request], /) -> None:
        """Respond to requests of one loop iteration, in the order of arrival, immediately or later."""


class StrictParser(HttpRequestParser):
    """aiohttp's parser with a bound on framing; errors quote no input, and also end a body being read."""

    def feed_data(self, data: bytes, *_: Any) -> Any:
        """Parse received bytes; raise a single error type for anything that is not HTTP."""
        connection = cast("ClientConnection", self.protocol)
        if not connection.ahead:  # aiohttp still counts a request that was served before its body arrived
            self.message_consumed()
        try:
            found = super().feed_data(data)
            connection.parsed(data, found[0])
            return found  # noqa: TRY300 - exceptions raised below have no context
        except Exception:  # noqa: BLE001 - yarl has an IndexError for `http://[x]@`
            connection.is_malformed = True
            if not connection.body.is_eof():
                connection.body.set_exception(web_protocol.RequestPayloadError())
        raise connection.malformed


class ClientConnection(web_protocol.RequestHandler):
    """One client connection; never puts a byte of a request into a response or a log line."""

    def __init__(self, server: "HardenedServer") -> None:
        loop, no_log = asyncio.get_running_loop(), cast("Any", None)
        super().__init__(server, loop=loop, keepalive_timeout=KEEPALIVE_S, lingering_time=0, access_log=no_log)
        own: Any = {"payload_exception": web_protocol.RequestPayloadError, "max_msg_queue_size": AHEAD_MAX}
        self._parser = StrictParser(self, loop, server.body_max_bytes, auto_decompress=False, **own)
        self._max_msg_queue_size, self.server = AHEAD_MAX, server
        self.due = math.inf  # deadline of the current wait, by `time.monotonic`
        self.overdue: Ended | None = None  # reason to reset the connection after `due`; None to just close it
        self.held = 0  # its share of `HardenedServer.held_bytes`
        self.body: Any = EMPTY_PAYLOAD  # body of the request parsed last
        self.malformed, self.is_malformed = HttpProcessingError(code=MALFORMED.status), False
        self._fed = 0  # bytes of that body received, with its framing from the second piece on
        self.end = b""  # last bytes received
        self.is_serving = False  # a request is being read or handled, and its response is not written
        self.is_busy = False  # that request is complete, and its response is not sent
        self.is_finished = False  # the client has finished sending
        self.is_trusted = False  # the connection has carried a new verified delivery

    def wait(self, overdue: Ended | None) -> None:
        """Set a time limit for the next step, or only aiohttp's keep-alive timeout between two requests."""
        self.due, self.overdue = time.monotonic() + self.server.read_timeout_s if overdue else math.inf, overdue

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit the write buffer to one response, and start the time limit of the first byte."""
        cast("asyncio.Transport", transport).set_write_buffer_limits(high=0)
        self.wait("silent")
        super().connection_made(transport)
        self.server.opened(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Release the held bytes; a delivery in progress is still finished."""
        super().connection_lost(exc)
        self.drop()

    def drop(self) -> None:
        """Release received data, which forms a reference cycle that only garbage collection would free."""
        self.hold(0)
        self.body, self.malformed.__traceback__ = EMPTY_PAYLOAD, None
        self._messages.clear()

    @property
    def ahead(self) -> int:
        """Number of requests parsed and not served yet."""
        return len(self._messages)

    def data_received(self, data: bytes) -> None:
        """Parse in pieces, so that little is parsed before a bound is reached."""
        if data and not self.is_busy and self.overdue != "slow_request":
            self.wait("slow_request")
        # Without new data, aiohttp continues with data that it has kept.
        while (data or self.ahead < AHEAD_MAX) and not self.is_malformed:
            size = PIECE_BYTES if self.ahead < AHEAD_MAX else len(data)
            super().data_received(data[:size])
            data = data[size:]
            if not data:
                return

    def parsed(self, data: bytes, messages: Sequence[tuple[Any, Any]]) -> None:
        """Count parsed bytes; raise if there is more framing than senders use."""
        self.end = (self.end + data[-len(CHUNKED_END) :])[-len(CHUNKED_END) :]
        self.body = messages[-1][1] if messages else self.body
        self._fed = self.body.total_bytes if messages else self._fed + len(data)
        held, content, is_whole = self.held + len(data), self.body.total_bytes, self.body.is_eof()
        if self._fed - content > FRAMING_MAX_BYTES + content // FRAMING_SHARE and not is_whole:
            raise ValueError
        is_alone = is_whole and self.ahead + len(messages) <= 1 and not self.is_busy and held - content <= HEAD_BYTES
        self.hold(0 if is_alone else held)

    def eof_received(self) -> bool:  # type: ignore[override]
        """Keep the connection open for its response after the client has finished sending."""
        self.is_finished = True
        if not self.body.is_eof():
            self.body.set_exception(web_protocol.RequestPayloadError())
        return self.is_serving or self.ahead > 0

    def handle_error(self, _: Any, status: int = 500, exc: Any = None, _text: Any = None) -> Any:
        """Return the response to a malformed request or a bug."""
        if status != MALFORMED.status:
            self.log_exception(exc_info=exc)
            return FAILED
        if self.transport is not None:
            self.server.on_malformed()
        return MALFORMED

    def log_exception(self, *_: Any, exc_info: Any = None, **__: Any) -> None:
        """Log only code locations, since messages contain values."""
        log.error("worker.http_failed", code=type(exc_info).__name__, where=trail(exc_info))

    def hold(self, size: int) -> None:
        """Note that the connection holds `size` bytes of incomplete or queued requests."""
        server, holders = self.server, self.server.holders
        server.held_bytes += size - self.held
        self.held = size
        if not size:
            holders.pop(self, None)
            return
        holders[self] = None
        # A single connection may hold more; otherwise a body of maximum size might never be received.
        while server.held_bytes > server.reading_max_bytes and len(holders) > 1:
            next(iter(holders)).reset("bodies_full")

    def reset(self, reason: Ended) -> None:
        """Abort the connection."""
        self.hold(0)
        if self.transport is not None:
            self.server.on_ended(reason)
            self.transport.abort()
            self.force_close()


class HardenedServer(web_server.Server):
    """Creates `ClientConnection`s, ends those that exceed bounds, and drains."""

    connections: list[ClientConnection]  # type: ignore[assignment]  # includes lost ones whose request is in progress

    def __init__(
        self,
        handler: Handler,
        *,
        read_timeout_s: float,
        host: str = "127.0.0.1",
        port: int = 0,
        section: str = "BRIDGE_HTTP",
        drain_s: float = 0.0,
        body_max_bytes: int = TURN_MAX_BYTES,
        connections_max: int = 256,
        reading_max_bytes: int = TURN_MAX_BYTES,
        on_malformed: Callable[[], None] = lambda: None,
        on_ended: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        """`on_malformed` is called for a malformed request, `on_ended` for a connection that the server ends."""
        super().__init__(cast("Any", self._serve), request_factory=Request)
        self._listen = partial(listen, self, host, port, section=section)
        self._drain_s = drain_s  # seconds for requests in flight at shutdown
        self.listening = asyncio.Event()  # set once it accepts connections
        self.draining = False  # set at shutdown: each connection ends with its next response
        self.held_bytes = 0  # bytes of incomplete or queued requests
        self._handler, self.on_malformed, self.on_ended = handler, on_malformed, on_ended
        self.read_timeout_s, self.body_max_bytes = read_timeout_s, body_max_bytes
        self._connections_max, self.reading_max_bytes = connections_max, reading_max_bytes
        self.holders: dict[ClientConnection, None] = {}  # in the order of arrival of what they hold
        self._arrived: list[Request] = []  # not taken yet, in the order of arrival

    def __call__(self) -> ClientConnection:
        """Create the protocol of a new connection."""
        return ClientConnection(self)

    def opened(self, newcomer: ClientConnection) -> None:
        """End another connection for a new one if there are too many."""
        if len(self.connections) > self._connections_max:
            # One by one, only as far as needed: a crowd comes faster than all connections could be checked each time.
            able = (each for each in self.connections[:-1] if each.transport and not (each.is_busy or each.ahead))
            oldest = next(able, newcomer)
            next((each for each in chain([oldest], able) if not each.is_trusted), oldest).reset("too_many")

    async def _serve(self, request: Request) -> Any:
        connection, body = request.connection, request.content
        if not request.is_plain:
            return connection.handle_error(request, MALFORMED.status)
        if body.is_eof():
            request.body = body.read_nowait()
        else:
            connection.wait("slow_request")
            if (response := self._handler.check(request)) is not None:
                return response
            try:  # one byte more than is accepted
                request.body = await body.readexactly(self.body_max_bytes + 1)
            except asyncio.IncompleteReadError as exc:
                request.body = exc.partial
            except Exception as exc:  # noqa: BLE001 - of the parser, of the transport, or of the stream, as it ended
                exc.__traceback__ = None  # its frames hold the bytes read
                return connection.handle_error(request, MALFORMED.status)
        connection.wait(None)
        connection.is_busy = True
        if connection.held:
            behind = max(0, connection.held - len(request.body))
            connection.hold(behind if connection.ahead or behind > HEAD_BYTES else 0)
        if not self._arrived:
            asyncio.get_running_loop().call_soon(self._take)
        self._arrived.append(request)
        response = await request.response
        # A client that waits for 100 Continue may omit its body, so the next bytes may be a request (RFC 9110 10.1.1).
        request.is_last = not (body.is_eof() and request.keep_alive and request.version >= HttpVersion11)
        request.is_last |= self.draining or "Upgrade" in request.headers  # the parser drops bytes after some upgrades
        if "Transfer-Encoding" in request.headers:  # the parser adds a trailer to the headers of the next request
            request.is_last |= connection.end != CHUNKED_END or connection.ahead > 0
        request.is_last |= connection.is_finished and not connection.ahead
        return response

    def _take(self) -> None:
        sizes = accumulate(len(each.body) for each in self._arrived[:TURN_MAX])
        count = max(1, sum(size <= TURN_MAX_BYTES for size in sizes))
        taken, self._arrived = self._arrived[:count], self._arrived[count:]
        if self._arrived:
            asyncio.get_running_loop().call_soon(self._take)
        try:
            self._handler.take(taken)
        except Exception as exc:  # noqa: BLE001 - a bug must not leave a client waiting
            for request in taken:
                request.fail(exc)

    @property
    def open_connections(self) -> int:
        """Number of open connections; lost ones may still have a delivery in progress."""
        return sum(each.transport is not None for each in self.connections)

    async def run(self, stop: asyncio.Event) -> None:
        """Accept until `stop` is set, then respond to requests in flight for at most `drain_s`, and close."""
        self._connections_max = allow_connections(self._connections_max)
        listener = await self._listen()
        self.listening.set()
        try:
            while await pause(stop, TICK_S):
                self._end_slow()
        finally:
            self.draining = True
            accepted = accept_all(listener, self)
            listener.close()
            await accepted
            await self._drain()

    def _end_slow(self) -> None:
        """End connections whose time limit has passed."""
        for connection in self.connections:
            if connection.overdue and connection.due < time.monotonic():
                connection.reset(connection.overdue)

    async def _drain(self) -> None:
        """Close idle connections immediately, and the others after their response."""
        deadline = time.monotonic() + self._drain_s
        idle: set[ClientConnection] = set()
        while time.monotonic() < deadline and any(each.transport or each.is_busy for each in self.connections):
            before, idle = idle, {each for each in self.connections if not (each.held or each.ahead or each.is_busy)}
            for connection in idle & before:  # not in the first round: a request may have arrived and not been read yet
                connection.force_close()
            self._end_slow()
            await asyncio.sleep(0.02)  # connections end by loop callbacks; there is no event to wait for
        for connection in self.connections:
            connection.force_close()
