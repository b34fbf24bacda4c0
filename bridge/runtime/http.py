"""A hardened HTTP/1.1 server: constant error answers, bounds on what a client may hold, prepared answers, and a drain.

The way of a request:

1. `ClientConnection.data_received` cuts the bytes into requests (`messages`).
2. If its body has not arrived with its head, `Handler.check` may answer by the head alone. That answer ends the
   connection, since nothing is read behind a body that was not waited for.
3. Requests whose bodies are whole are given to `Handler.take`, up to 16 of one turn of the event loop together. Stage
   by stage they cost less CPU than one after the other: the code and data of a stage stay in the CPU's caches.
4. `Request.answer` writes the answer, at once or later, and has the connection go on.

A client costs memory only for what has arrived from it. Four bounds limit that; an honest sender reaches none:

- One request of a connection is parsed at a time. What was sent behind it waits unparsed, and meanwhile the connection
  is not read. The next one is parsed when the answer has left for the kernel, so that a client that sends and never
  reads fills the buffers of its own sockets.
- A connection has `read_timeout_s` for its first byte and head together, for each later head, for a body, and for
  taking an answer.
- Bytes of requests that are not whole are counted as they arrive. Over `reading_max_bytes` the connection that has held
  some for the longest is ended: an honest body is whole within a few round trips.
- Over `connections_max` a connection is ended for each new one: the oldest of those that are not proved. A delivery
  proves its connection if it is verified and new, since a captured one can be replayed; an ignored one never does. At
  most half of the connections are proved, the latest ones, since the owner of one secret can prove any number.
"""

import asyncio
import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, Literal, Protocol, cast

from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log, trail
from bridge.runtime.messages import (
    FAILED,
    HEAD_END,
    HEAD_MAX_BYTES,
    MALFORMED,
    Answer,
    Chunked,
    heads_parser,
    parse_head,
)
from bridge.runtime.sockets import accept_all, listen

# How often slow and idle connections are looked at; a limit is kept to within one tick.
TICK_S = 1.0
# After an answer that leaves a body unread, read on this long so that the sender sees the answer, not a reset.
LINGER_S = 2.0
# Longer than a balancer keeps a connection idle (60 s of nginx and AWS), or it would write into one that we close.
KEEPALIVE_S = 75.0
# Defaults, for the management port.
CONNECTIONS_MAX = 256
READING_MAX_BYTES = 1_048_576
# Requests that the handler takes before the loop reads from its connections again, and bytes of bodies beyond which it
# takes no further one: some 5 ms of the dearest, those with two ed25519 signatures. Where more wait, the oldest few go
# first, then those of proved connections.
TURN_MAX, TURN_MAX_BYTES, OLDEST = 16, 1_048_576, 4
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

# Why the server ends a connection. The last three mean that a bound was met, not just that a client was slow.
Ended = Literal["silent", "slow_request", "unread_answer", "bodies_full", "too_many"]


class Request:
    """One request; it is answered once, and what its client does meanwhile makes no difference to the handler."""

    __slots__ = ("began", "body", "connection", "message", "method", "note", "raw_headers", "target")

    def __init__(self, connection: "ClientConnection", message: Any) -> None:
        self.connection = connection
        self.message = message
        self.method: str = message.method  # in upper case
        # As it was sent: a path with a query, or the absolute form, which RFC 9112 3.2.2 has servers accept.
        self.target: str = message.path
        self.raw_headers: Sequence[tuple[bytes, bytes]] = message.raw_headers  # names and values as they were sent
        self.began = time.perf_counter()  # when its head was complete, by `time.perf_counter`
        self.body = b""  # complete in `Handler.take`, unless it is larger than the server accepts
        self.note: Any = None  # what the handler keeps from `check` to `take`

    @property
    def path(self) -> str:
        """Path of the target, as it was sent."""
        target = self.target
        return target.partition("?")[0] if target.startswith("/") else cast("str", self.message.url.raw_path)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by their names in any case."""
        return cast("Mapping[str, str]", self.message.headers)

    @property
    def peer(self) -> str:
        """Address at the other end of the connection; empty where that is gone."""
        transport = self.connection.transport
        address = transport and transport.get_extra_info("peername")
        return address[0] if address else ""

    def trust(self) -> None:
        """Note that it carried a verified delivery that is new."""
        self.connection.server.trust(self.connection)

    def invite(self) -> None:
        """Have a client send the body that it has announced; one of HTTP/1.0 knows no such answer (RFC 9110 10.1.1)."""
        if self.message.version >= (1, 1) and self.connection.transport is not None:
            self.connection.transport.write(CONTINUE)

    def answer(self, answer: Answer) -> None:
        """Answer it; nothing happens where the client has gone."""
        self.connection.respond(self, answer)

    def fail(self, exc: BaseException) -> None:
        """Answer 500 for a bug; only code locations are logged, since texts carry values."""
        log.error("worker.http_failed", code=type(exc).__name__, where=trail(exc))
        self.answer(FAILED)


class Handler(Protocol):
    """Answers requests by `Request.answer`, each once; what it raises is answered 500."""

    def check(self, request: Request, /) -> Answer | None:
        """Answer a request by its head, before its body has come; None to have the body come."""

    def take(self, requests: Sequence[Request], /) -> None:
        """Answer requests of one turn of the loop, in the order of arrival, now or later."""


class ClientConnection(asyncio.Protocol):
    """One client connection; never puts a byte of a request into an answer or a log line."""

    def __init__(self, server: "HardenedServer", loop: asyncio.AbstractEventLoop) -> None:
        self.server = server
        self._loop = loop
        self._parser = heads_parser(loop)
        self.transport: asyncio.Transport | None = None
        self._ahead = b""  # an incomplete head, or what came behind the request under way
        self._request: Request | None = None  # under way: its head has come, and its answer has not left
        self._body: bytearray | None = None  # its body so far, while the handler waits for it
        self._length = 0  # of that body, unless it is
        self._chunked: Chunked | None = None
        self._unread = False  # of that body some has not come
        self._answered = False  # that request, whose answer has not left
        self._closing = False  # whatever comes is dropped
        self._paused = False  # the kernel takes no more until the client reads
        self.due = math.inf  # when what it waits for must have come, in the loop's time
        # Why it is reset when that has not come; None where it is closed: between two requests, or after an answer
        # whose request has not come whole.
        self.overdue: Ended | None = None
        self.held = 0  # bytes that it counts for in `HardenedServer.held_bytes`
        # Nothing that comes after the request under way is answered: the client has finished sending, or what has come
        # is no HTTP.
        self.last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Limit the write buffer to one answer, and start the time limit of the first head."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)
        self._wait(self.server.read_timeout_s, "silent")
        self.server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what it held; a delivery that was taken is finished all the same."""
        del exc
        self.transport = None
        if self._body is not None or self._answered:
            self._request = None
        self._ahead, self._body = b"", None
        self.server.lost(self)

    def _wait(self, seconds: float, overdue: Ended | None = None) -> None:
        self.due, self.overdue = self._loop.time() + seconds, overdue

    @property
    def is_busy(self) -> bool:
        """True while a request was taken and is not answered."""
        return self._request is not None and self._body is None

    @property
    def idle(self) -> bool:
        """True if no part of a request is unanswered, and no answer is being written."""
        return self._request is None and not self._ahead and not self._closing

    def data_received(self, data: bytes) -> None:
        """Read one request; bytes behind it wait until it is answered."""
        if self._closing or self.last:
            return
        if self.overdue == "silent":
            self.overdue = "slow_request"
        self._ahead += data
        self._receive()

    def _receive(self) -> None:
        while self._ahead and not self._closing and not self.last:
            if self._body is not None:
                self._feed(self._body)
            elif self._request is None:
                if not self._begin():
                    break
            else:
                if self.transport is not None:
                    self.transport.pause_reading()
                break
        self._hold()

    def _hold(self) -> None:
        held = len(self._ahead) + (len(self._body) if self._body is not None else 0)
        if held or self.held:
            self.server.hold(self, held)

    def _begin(self) -> bool:
        """Take in a head, and its body if that has come with it; return False where there is no whole head."""
        data = self._ahead.removeprefix(b"\r\n")  # RFC 9112 2.2: an empty line before a request line is passed over
        end = data.find(HEAD_END) + len(HEAD_END)
        whole = end >= len(HEAD_END)
        if not whole and len(data) <= HEAD_MAX_BYTES:
            self._ahead = data
            if self.overdue != "slow_request":
                self._wait(self.server.read_timeout_s, "slow_request")
            return False
        message = parse_head(self._parser, data[:end]) if whole else None
        if message is None:
            self._malformed()
            return False
        length = int(message.headers.get("Content-Length") or 0)
        request = self._request = Request(self, message)
        self._unread = message.chunked or len(data) < end + length
        if self._unread:
            self._ahead = data[end:]
            self._body, self._length, self._chunked = bytearray(), length, Chunked() if message.chunked else None
            self._wait(self.server.read_timeout_s, "slow_request")
            self.server.check(request)
        else:
            self._ahead = data[end + length :]
            self._take(request, data[end : end + length])
        return True

    def _feed(self, body: bytearray) -> None:
        data, self._ahead = self._ahead, b""
        if self._chunked is None:
            missing = self._length - len(body)
            body += data[:missing]
            self._ahead = data[missing:]
            self._unread = len(body) < self._length
        elif (part := self._chunked.feed(data)) is None:
            self._malformed()
            return
        else:
            body += part
            self._unread, self.last = not self._chunked.is_whole, self._chunked.is_last
        is_too_large = len(body) > self.server.body_max_bytes  # and answered so by the handler
        self.last |= is_too_large
        if is_too_large or not self._unread:
            self._take(cast("Request", self._request), bytes(body))

    def _take(self, request: Request, body: bytes) -> None:
        self._body = None
        self._wait(math.inf)
        request.body = body
        self.server.put(request)

    def _malformed(self) -> None:
        """Answer what has come as no HTTP request, and read nothing of what follows as one."""
        self._send(MALFORMED, body=True, keep=False)
        self.server.on_malformed()

    def respond(self, request: Request, answer: Answer) -> None:
        """Write the answer to the request under way."""
        if request is not self._request or self._answered:
            return
        if self.transport is None:
            self._request = None
            self.server.lost(self)
            return
        message = request.message
        # Behind a body that has not come whole nothing is read. A client that waited for 100 Continue may leave it out,
        # so what comes may be another request, behind a proxy that of another sender (RFC 9110 10.1.1).
        is_last = self.last or self._unread or message.should_close or message.version < (1, 1)
        keep = not (is_last or answer.close or self.server.draining)
        self._send(answer, body=message.method != "HEAD", keep=keep)

    def _send(self, answer: Answer, *, body: bool, keep: bool) -> None:
        self._body = None
        self._answered, self._closing = True, not keep
        if self._closing:
            self._ahead = b""
        end = b"\r\n\r\n" if keep else b"\r\nConnection: close\r\n\r\n"
        if self.transport is not None:
            self.transport.write(answer.head + end + (answer.body if body else b""))
            if self._paused:
                self._wait(self.server.read_timeout_s, "unread_answer")
            else:
                self._sent()

    def pause_writing(self) -> None:
        """Note that the kernel takes no more; the client has the time of `_send` to read its answer."""
        self._paused = True

    def resume_writing(self) -> None:
        """Go on behind an answer that the kernel has taken."""
        self._paused = False
        if self._answered:
            self._sent()

    def _sent(self) -> None:
        """Go on with what the client has sent meanwhile; or close, once it has had time to read its answer.

        A connection that is closed while something comes is reset, and its answer with it.
        """
        self._request, self._answered = None, False
        self.server.rest(self)
        if self._closing or self.last:
            if self._unread:
                self._wait(LINGER_S)
            else:
                self.close()
            return
        self._wait(KEEPALIVE_S)
        if self._ahead:
            if self.transport is not None:
                self.transport.resume_reading()
            self._receive()

    def close(self) -> None:
        """Close it when the kernel has what was written."""
        self._closing = True
        if self.transport is not None:
            self.transport.close()

    def eof_received(self) -> bool:
        """Keep a connection open for its answer when the client has only finished sending."""
        self.last, self._unread = True, False
        if self._body is not None:
            self._malformed()
        return self._request is not None and not self._closing


class HardenedServer:
    """Makes `ClientConnection`s, ends those that cost too much, and drains."""

    def __init__(
        self,
        handler: Handler,
        *,
        read_timeout_s: float,
        host: str = "127.0.0.1",
        port: int = 0,
        section: str = "BRIDGE_HTTP",
        drain_s: float = 0.0,
        body_max_bytes: int = READING_MAX_BYTES,
        connections_max: int = CONNECTIONS_MAX,
        reading_max_bytes: int = READING_MAX_BYTES,
        on_malformed: Callable[[], None] = lambda: None,
        on_ended: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        """Serve every request with `handler`; call the last two for what is no request, and for a connection ended.

        The variables of the address begin with `section`. At a stop, what is in flight has `drain_s`.
        """
        self._address = (host, port)
        self._section = section
        self._drain_s = drain_s
        self.listening = asyncio.Event()  # set once it accepts connections
        self.draining = False  # set from the stop on: each connection ends with its next answer
        self.held_bytes = 0  # bytes of requests that are incomplete or wait for their turn
        # Connections that are not proved and have no whole request under way, the first to make room first.
        self.strangers: dict[ClientConnection, None] = {}
        self.body_max_bytes = body_max_bytes
        self._handler = handler
        self.on_malformed = on_malformed
        self._on_ended = on_ended
        self.read_timeout_s = read_timeout_s
        self._connections_max = connections_max
        self._reading_max_bytes = reading_max_bytes
        self._loop = asyncio.get_running_loop()
        self._connections: set[ClientConnection] = set()  # with those lost while a request of theirs is under way
        self._proved: dict[ClientConnection, None] = {}  # in the order of their last new delivery
        self._holders: dict[ClientConnection, None] = {}  # in the order of arrival of what they hold
        self._arrived: list[Request] = []  # and not taken, in the order of arrival

    def __call__(self) -> ClientConnection:
        """Make the protocol of a new connection."""
        return ClientConnection(self, self._loop)

    def opened(self, newcomer: ClientConnection) -> None:
        """Count a connection, and have another one make room where there are too many."""
        self._connections.add(newcomer)
        # Those that were ended in this turn of the loop are still counted, and so are the new ones they made room for.
        if len(self._connections) > self._connections_max:
            idle = (each for each in self._proved if each.idle)
            self.end(next(chain(self.strangers, idle), newcomer), "too_many")
        self.strangers[newcomer] = None

    def lost(self, connection: ClientConnection) -> None:
        """Count a connection no more, once nothing of it is under way."""
        self.forget(connection)
        if not connection.is_busy:
            self._connections.discard(connection)

    def put(self, request: Request) -> None:
        """Pass a complete request to the handler, with others of this turn of the loop."""
        self.strangers.pop(request.connection, None)
        if not self._arrived:
            self._loop.call_soon(self._take)
        self._arrived.append(request)

    def _take(self) -> None:
        first = self._arrived
        if len(first) > TURN_MAX:
            first = first[:OLDEST] + sorted(first[OLDEST:], key=lambda each: each.connection not in self._proved)
        sizes = accumulate(len(each.body) for each in first[:TURN_MAX])
        taken = first[: max(1, sum(size <= TURN_MAX_BYTES for size in sizes))]
        gone = set(taken)
        self._arrived = [each for each in self._arrived if each not in gone]
        if self._arrived:
            self._loop.call_soon(self._take)
        try:
            self._handler.take(taken)
        except Exception as exc:  # noqa: BLE001 - a bug must leave no client waiting; what was answered stays so
            for request in taken:
                request.fail(exc)

    def check(self, request: Request) -> None:
        """Let the handler check a head whose body has not arrived."""
        try:
            answer = self._handler.check(request)
        except Exception as exc:  # noqa: BLE001 - as above
            request.fail(exc)
        else:
            if answer is not None:
                request.answer(answer)

    def hold(self, connection: ClientConnection, size: int) -> None:
        """Note that a connection holds `size` bytes of requests that are incomplete or wait for their turn."""
        self.held_bytes += size - connection.held
        connection.held = size
        if not size:
            self._holders.pop(connection, None)
            return
        self._holders[connection] = None
        # One alone may hold more, or a body of the largest size allowed might never come in.
        while self.held_bytes > self._reading_max_bytes and len(self._holders) > 1:
            self.end(next(iter(self._holders)), "bodies_full")

    def end(self, connection: ClientConnection, reason: Ended) -> None:
        """Reset a connection."""
        self.forget(connection)
        if connection.transport is not None:
            self._on_ended(reason)
            connection.transport.abort()

    def rest(self, connection: ClientConnection) -> None:
        """Let a connection make room for another from now on, unless it is proved or has a request under way."""
        if connection not in self._proved and not connection.is_busy:
            self.strangers[connection] = None

    def trust(self, connection: ClientConnection) -> None:
        """Note that a connection, which may be lost by now, has carried a new delivery."""
        if connection.transport is None:
            return
        self.strangers.pop(connection, None)
        self._proved.pop(connection, None)
        self._proved[connection] = None
        if len(self._proved) > self._connections_max // 2:
            oldest = next(iter(self._proved))
            del self._proved[oldest]
            self.rest(oldest)

    def forget(self, connection: ClientConnection) -> None:
        """Stop counting the bytes that a connection holds."""
        self.strangers.pop(connection, None)
        self._proved.pop(connection, None)
        self.hold(connection, 0)

    @property
    def open_connections(self) -> int:
        """Connections that are open now; a lost one may still have a delivery under way."""
        return sum(connection.transport is not None for connection in self._connections)

    async def run(self, stop: asyncio.Event) -> None:
        """Accept until `stop` is set, then answer what is in flight for at most `drain_s`, and close."""
        host, port = self._address
        listener = await listen(self, host, port, connections_max=self._connections_max, section=self._section)
        self.listening.set()
        try:
            while await pause(stop, TICK_S):
                self._end_slow()
        finally:
            self.draining = True
            waiting = accept_all(listener)
            listener.close()
            for accepted in waiting:
                with contextlib.suppress(OSError):  # gone by itself meanwhile
                    await self._loop.connect_accepted_socket(self, accepted)
            await self._drain()

    def _end_slow(self) -> None:
        """End connections whose time limit has passed."""
        now = self._loop.time()
        for connection in [each for each in self._connections if each.due < now]:
            if connection.overdue is not None:
                self.end(connection, connection.overdue)
            else:
                connection.close()

    async def _drain(self) -> None:
        """Close idle connections at once, and the others after their answer."""
        deadline = self._loop.time() + self._drain_s
        idle: set[ClientConnection] = set()
        while self._connections and self._loop.time() < deadline:
            before, idle = idle, {each for each in self._connections if each.idle}
            for connection in idle & before:  # at first sight its request may have come and not been read yet
                connection.close()
            self._end_slow()
            await asyncio.sleep(0.02)  # connections end by callbacks of the loop; there is no event to wait for
        for connection in list(self._connections):
            if connection.transport is not None:
                connection.transport.abort()
