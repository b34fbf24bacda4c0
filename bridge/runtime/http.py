"""A hardened HTTP/1.1 server: constant error answers, bounds on what a client may hold, prepared answers, and a drain.

Of aiohttp only its parser is used, by the names imported below and the fields of what it returns
(`tests/unit/test_http_parser.py` fails when one of them changes). The way of a request:

1. `Connection.data_received` cuts the bytes into requests and has the parser check each.
2. If its body has not come with its head, `Handler.check` may answer by the head alone.
3. Requests whose bodies are whole are given to `Handler.take`, all that came in one turn of the event loop together,
   or within some milliseconds when others were taken just before: taken stage by stage they cost a third less CPU than
   one after the other, since the code and data of a stage stay in the CPU's caches.
4. `Request.answer` writes the answer, at once or later, and has the connection go on.

A client costs what has arrived from it, and that is bounded in four ways, none of which an honest sender meets:

- One request of a connection is parsed at a time. What was sent behind it waits unparsed, and meanwhile the connection
  is not read. The next one is parsed when the answer has left for the kernel, so that a client that sends and never
  reads fills the buffers of its own sockets.
- A connection has `read_timeout_s` for its first byte and head together, for each later head, for a body, and for
  taking an answer.
- Bytes of requests that are not whole are counted as they arrive. Over `reading_max_bytes` the connection that has held
  some for the longest is ended: an honest body is whole within a few round trips.
- Over `connections_max` a connection is ended for each new one: the oldest of those that are not proved. A delivery
  proves its connection if it is verified and new, since a captured one can be replayed. At most half of the connections
  are proved, the latest ones, since the owner of one secret can prove any number.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import resource
import socket
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from http import HTTPStatus
from typing import Any, Literal, Protocol, cast

import structlog
from aiohttp.http import HttpProcessingError, HttpRequestParser

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
# Under load, requests gather for this long: less than a tenth of what a sender's network takes, and the resolution of
# the loop's timers is 1 ms. With 64 connections it saves a tenth of the CPU for a delivery, at 2,000 a second a fifth,
# as stages and batches are larger. A request more than GATHER_S after the last does not wait, nor do any once each
# connection has sent one, since no more can come.
GATHER_S = 0.002
# After a turn of `BUSY_TURN` requests (with some 4,000 a second) they gather for this long: it saves another tenth of
# the CPU, and answers come no later, since under such a load they wait for the processor. 8 ms would save a quarter
# more at 2,000 a second, but half of the answers would take 7 ms then instead of 3.
GATHER_BUSY_S = 0.004
BUSY_TURN = 8
# Requests that the handler takes before the loop reads from its connections again; the dearest, with two ed25519
# signatures, take 0.3 ms each.
TURN_MAX = 16
# Files that the process needs for all else: brokers, spool, secrets, probes.
FILES_SPARE = 256
# Framing of a chunked body: this much, and an eighth of its content. A sender has the whole body before it can sign it,
# and libraries send one in chunks of a kilobyte or more. Decoding costs 0.5 us a chunk.
FRAMING_MAX_BYTES = 8_192
FRAMING_SHARE = 8
# Of a line before a chunk, and of the trailer.
CHUNK_LINE_MAX_BYTES = 1_024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Of aiohttp's body stream, which is not used: the parser is given heads only.
STREAM_LIMIT_BYTES = 65_536
HEAD_END = b"\r\n\r\n"
# RFC 9112 3: one space on either side of the target. The parser would take more of them, and other versions or none.
_request_line = re.compile(rb"(?!CONNECT )[!-~]+ [!-~]+ HTTP/1\.[01]\r\n").match
# RFC 9112 7.1: the size of a chunk with extensions, and the end of a body with a trailer; each begins with the line end
# before it. Quoted extensions are refused: nobody sends them, and servers do not agree on them.
_TOKEN = rb"[!#-'*+.0-9A-Z^-z|~-]+"
_EXTENSIONS = rb"(?:;%b(?:=%b)?)*" % (_TOKEN, _TOKEN)
_chunk_size = re.compile(rb"\r\n([0-9A-Fa-f]{1,8})%b\r\n" % _EXTENSIONS).match
_chunked_end = re.compile(rb"\r\n0+%b\r\n((?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % (_EXTENSIONS, _TOKEN)).match

# More than any length needs, and `int` refuses some thousands.
LENGTH_DIGITS = 18

# Why the server ends a connection. The last three mean that a bound was met, not just that a client was slow.
Ended = Literal["silent", "slow_request", "unread_answer", "bodies_full", "too_many"]


@lru_cache(maxsize=1024)
def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode("ascii")


class Answer:
    """A whole HTTP answer as prepared bytes, written in one piece; one object may serve many requests."""

    __slots__ = ("body", "close", "head", "status")

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
        self.head = _head(status, content_type, headers, len(body))
        self.body = body
        self.status = status
        self.close = close


MALFORMED = Answer(400, b'{"outcome":"refused","code":"malformed_http"}', close=True)
FAILED = Answer(500, b'{"outcome":"unavailable","code":"internal_error"}', close=True)


class Request:
    """One request; it is answered once, and what its client does meanwhile makes no difference to the handler.

    Attributes:
        method: In upper case.
        target: As it was sent: a path with a query, or the absolute form, which RFC 9112 3.2.2 has servers accept.
        raw_headers: Names and values as they were sent.
        note: What the handler keeps from `check` to `take`.
        body: Whole in `Handler.take`, or so much of it that it is larger than the server takes.
        began: When its head had come, by `time.perf_counter`.
    """

    __slots__ = ("_message", "began", "body", "connection", "method", "note", "raw_headers", "target")

    def __init__(self, connection: Connection, message: Any) -> None:
        self.connection = connection
        self._message = message
        self.method: str = message.method
        self.target: str = message.path
        self.raw_headers: Sequence[tuple[bytes, bytes]] = message.raw_headers
        self.began = time.perf_counter()
        self.body = b""
        self.note: Any = None

    @property
    def path(self) -> str:
        """Path of the target, as it was sent."""
        target = self.target
        return target.partition("?")[0] if target.startswith("/") else cast("str", self._message.url.raw_path)

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers by their names in any case."""
        return cast("Mapping[str, str]", self._message.headers)

    @property
    def peer(self) -> str:
        """Address at the other end of the connection; empty where that is gone."""
        return self.connection.peer

    def trust(self) -> None:
        """Note that it carried a verified delivery that is new."""
        self.connection.trust()

    def invite(self) -> None:
        """Have a client send the body that it has announced; one of HTTP/1.0 knows no such answer (RFC 9110 10.1.1)."""
        if self._message.version >= (1, 1):
            self.connection.write(CONTINUE)

    def answer(self, answer: Answer) -> None:
        """Answer it; nothing happens where the client has gone."""
        self.connection.respond(self, self._message, answer)

    def fail(self, exc: BaseException) -> None:
        """Answer 500 for a bug; only the places are logged, since texts carry values."""
        log.error("worker.http_failed", code=type(exc).__name__, where=trail(exc))
        self.answer(FAILED)


class Handler(Protocol):
    """Answers requests by `Request.answer`, each once; what it raises is answered 500."""

    def check(self, request: Request, /) -> Answer | None:
        """Answer a request by its head, before its body has come; None to have the body come."""

    def take(self, requests: Sequence[Request], /) -> None:
        """Answer requests that have come at about the same time, in the order of arrival, now or later."""


def _is_plainly_chunked(message: Any) -> bool:
    """Say whether this is no coding but chunked, as RFC 9112 6.1 wants; the parser passes over an empty one."""
    codings = ",".join(message.headers.getall("Transfer-Encoding")).lower()
    return bool(message.chunked) and codings == "chunked" and message.version >= (1, 1)


class Chunked:
    """Decodes a chunked body as it comes.

    Attributes:
        is_whole: The end has come.
        is_last: The end has a trailer, or something behind it; the connection takes no further request then.
    """

    __slots__ = ("_framing", "_left", "_line", "_size", "is_last", "is_whole")

    def __init__(self) -> None:
        self._line = b"\r\n"  # of a line that is not whole; at first the end of the head
        self._left = 0  # of the content of a chunk
        self._size = 0
        self._framing = 0
        self.is_whole = False
        self.is_last = False

    def feed(self, data: bytes) -> bytes | None:
        """Return the content in `data`; None if it is malformed, or has more framing than any sender's."""
        data, at, parts = self._line + data, 0, []
        while True:
            if self._left:
                part = data[at : at + self._left]
                parts.append(part)
                at += len(part)
                self._left -= len(part)
            line = None if self._left else _chunk_size(data, at)
            if line is None or not (size := int(line[1], 16)):
                break
            self._framing += line.end() - at
            if self._framing > FRAMING_MAX_BYTES + self._size // FRAMING_SHARE:
                return None
            at = line.end()
            self._left = size
            self._size += size
        if line is not None and (end := _chunked_end(data, at)):
            self.is_whole, self.is_last = True, bool(end[1]) or end.end() < len(data)
        elif data.find(b"\r\n\r\n" if line else b"\r\n", at + 1) >= 0 or len(data) - at > CHUNK_LINE_MAX_BYTES:
            return None
        self._line = data[at:]
        return b"".join(parts)


class _Unpaused:
    """The protocol that aiohttp's parser asks for; heads have no body that it could pause."""

    _reading_paused = False


def _parser(loop: asyncio.AbstractEventLoop) -> Any:
    """Make a parser of heads alone, one after the other."""
    return HttpRequestParser(
        cast("Any", _Unpaused()), loop, STREAM_LIMIT_BYTES, response_with_body=False, auto_decompress=False
    )


def _parse(parser: Any, head: bytes) -> Sequence[tuple[Any, Any]]:
    """Return the requests in a head, of which there should be one.

    Raises:
        HttpProcessingError: It is no HTTP, whatever the libraries raise for it: yarl has an IndexError for `http://[x]@`.
    """
    try:
        messages, upgraded, _ = parser.feed_data(head)
    except Exception:  # noqa: BLE001 - else one request of a stranger is a bug in the log, and has no answer
        raise HttpProcessingError from None
    if upgraded:  # never by us; without this the parser would pass over all that follows
        parser.set_upgraded(False)
    return cast("Sequence[tuple[Any, Any]]", messages)


class Connection(asyncio.Protocol):
    """One client connection; never puts a byte of a request into an answer or a log line.

    Attributes:
        idle_until: When it will have been idle for too long.
        last: Nothing that comes after the request under way is answered: the client has finished sending, or what has
            come is no HTTP, or the parser may have kept something of it.
        linger_until: Until when the rest of a body is read that was answered without it.
        reading_since: Since when the first byte, or the rest of a head or body, is awaited; in the loop's time.
        writing_since: Since when the client has not taken an answer.
    """

    __slots__ = (
        "_ahead",
        "_answered",
        "_chunked",
        "_closing",
        "_left",
        "_loop",
        "_parser",
        "_parts",
        "_received",
        "_request",
        "_server",
        "_size",
        "held",
        "idle_until",
        "last",
        "linger_until",
        "reading_since",
        "silent",
        "transport",
        "writing_since",
    )

    def __init__(self, server: HardenedServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._parser = _parser(loop)
        self._chunked: Chunked | None = None  # while a chunked body comes
        self.transport: asyncio.Transport | None = None
        self._ahead = b""  # an incomplete head, or what came behind the request under way
        self._request: Request | None = None  # under way: its head has come, and its answer has not left
        self._left: float = 0  # bytes that are still to come of a body; infinite in a chunked one
        self._received = 0  # bytes of a request that is not whole
        self._parts: list[bytes] | None = None  # what has come of it; None where nobody wants it any more
        self._size = 0  # of those parts
        self._answered = False  # the request under way, though its body or the client may still be waited for
        self._closing = False
        self.held = 0
        self.last = False
        self.idle_until = math.inf
        self.linger_until: float | None = None
        self.reading_since: float | None = None
        self.writing_since: float | None = None
        self.silent = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Allow nothing but the answer that is being given in the buffer, and the first head its time."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=0)
        self.reading_since = self._loop.time()
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give back what it held; a delivery that was taken is finished all the same."""
        del exc
        self.transport = None
        self._ahead, self._parts = b"", None
        if self._left or self._answered:
            self._request = None
        self._left, self._chunked = 0, None
        self._server.lost(self)

    @property
    def peer(self) -> str:
        """Address at the other end; empty where that is gone."""
        address = self.transport and self.transport.get_extra_info("peername")
        return address[0] if address else ""

    @property
    def is_busy(self) -> bool:
        """True while a request was taken and is not answered."""
        return self._request is not None and not self._left

    @property
    def is_ending(self) -> bool:
        """True when the next answer is the last of this connection."""
        return self.last or self._server.draining

    @property
    def idle(self) -> bool:
        """True where nothing of a request has come that was not answered."""
        return self._request is None and not self._ahead and not self._left

    def trust(self) -> None:
        """Note that it carried a new delivery; it may be lost by now."""
        if self.transport is not None:
            self._server.trust(self)

    def write(self, data: bytes) -> None:
        """Write what is no answer yet."""
        if self.transport is not None:
            self.transport.write(data)

    def data_received(self, data: bytes) -> None:
        """Take in one request; what comes behind it waits until that was answered."""
        if self._closing or self.last:
            return
        self.silent = False
        self._receive(data)
        held = len(self._ahead) + (self._received if self._left else 0)
        if held or self.held:
            self._server.hold(self, held)

    def _receive(self, data: bytes) -> None:
        seen = len(self._ahead)
        if seen:
            data, self._ahead = self._ahead + data, b""
        while data and not self._closing:
            if self._left:
                size = len(data) if len(data) <= self._left else int(self._left)
                self._left -= size
                self._received += size
                self._feed(data[:size])
                data = data[size:]
            elif self._request is not None:
                self._ahead = data
                self._pause()
                break
            else:
                data = self._begin(data, seen)
                if self._ahead:
                    break
            seen = 0

    def _begin(self, data: bytes, seen: int) -> bytes:
        """Take a head in, and as much of its body as is there; return what belongs to the next request."""
        if data.startswith(b"\r\n"):  # RFC 9112 2.2: an empty line before a request line is passed over
            data = data[2:]
        end = data.find(HEAD_END, max(0, seen - len(HEAD_END) + 1)) + len(HEAD_END)
        whole = end >= len(HEAD_END)
        if not whole and len(data) <= HEAD_MAX_BYTES:
            self._ahead = data
            self.reading_since = self.reading_since or self._loop.time()
            return b""
        if not whole or end > HEAD_MAX_BYTES or not _request_line(data):
            self._malformed()
            return b""
        try:
            messages = _parse(self._parser, data[:end])
        except HttpProcessingError:
            messages = ()
        if len(messages) != 1:  # no good, or the parser sees its end elsewhere than we do
            self._malformed()
            return b""
        message = messages[0][0]
        is_chunked = "Transfer-Encoding" in message.headers
        if is_chunked and not _is_plainly_chunked(message):
            self._malformed()
            return b""
        length = message.headers.get("Content-Length") or "0"
        # One of more digits than any body has is refused by every handler: all that comes belongs to it.
        total = end + int(length) if len(length) <= LENGTH_DIGITS else math.inf
        if total == math.inf and not is_chunked:
            self.last = True  # a proxy knows where it ends, and would send another's request on this connection
        request = self._request = Request(self, message)
        self._server.refresh(self)
        if not is_chunked and len(data) >= total:
            self.reading_since = None
            request.body = data[end : (total := int(total))]
            self._server.put(request)
            return data[total:]
        if is_chunked:
            self._chunked = Chunked()
        self._left = math.inf if is_chunked else total - end
        self._received, self._parts, self._size = 0, [], 0
        self.reading_since = self._loop.time()
        self._server.check(request)
        return data[end:]

    def _feed(self, data: bytes) -> None:
        """Take a part of a body, of which `_left` says how much is missing after it."""
        part: bytes | None = data
        if self._chunked is not None:
            part = self._chunked.feed(data)
            if self._chunked.is_whole:
                self._left = 0
                self.last = self.last or self._chunked.is_last
        if part is None:
            self._cut_short()
            return
        if self._parts is not None:
            self._parts.append(part)
            self._size += len(part)
        if not self._left:
            self._chunked = None
            self._end_body()
        elif self._parts is not None and self._size > self._server.body_max_bytes:
            self._put()

    def _end_body(self) -> None:
        """Take a request whose body is whole, or go on behind a body that was not waited for."""
        self.reading_since = None
        if self._parts is not None:
            self._put()
        elif self._answered and self.writing_since is None:
            self._go_on()

    def _put(self) -> None:
        request, parts = self._request, self._parts
        self._parts = None
        if request is not None and parts is not None:
            request.body = b"".join(parts)
            self._server.put(request)

    def _cut_short(self) -> None:
        """End a body whose rest will not come, or is no HTTP; what was taken without it is answered by the handler."""
        self._left, self._chunked = 0, None
        self.last, self.reading_since = True, None
        if self._parts is not None or self._answered:
            self._malformed()

    def _malformed(self) -> None:
        """Answer what has come as no HTTP request, and read nothing of what follows as one."""
        self.reading_since = None
        self.last = True
        if self._answered:
            self.close()
            return
        self._server.malformed()
        self._parts = None
        self._send(MALFORMED, body=True, keep=False)

    def respond(self, request: Request, message: Any, answer: Answer) -> None:
        """Write the answer to the request under way."""
        if request is not self._request or self._answered:
            return
        if self.transport is None:
            self._request = None
            self._server.lost(self)
            return
        # A client that waited for 100 Continue may now send its body or leave it out, so what comes next may be another
        # request, behind a proxy that of another sender (RFC 9110 10.1.1).
        may_skip_body = self._left and "Expect" in message.headers
        keep = not (answer.close or message.should_close or self.is_ending or message.version < (1, 1) or may_skip_body)
        self._parts = None
        self.reading_since = None
        self._send(answer, body=message.method != "HEAD", keep=keep)

    def _send(self, answer: Answer, *, body: bool, keep: bool) -> None:
        transport = self.transport
        if transport is None:
            return
        self._answered, self._closing = True, not keep
        transport.write(
            answer.head + (b"\r\n\r\n" if keep else b"\r\nConnection: close\r\n\r\n") + (answer.body if body else b"")
        )
        if self.writing_since is None:
            self._sent()

    def pause_writing(self) -> None:
        """Note since when the kernel has not taken an answer."""
        self.writing_since = self._loop.time()

    def resume_writing(self) -> None:
        """Go on behind an answer that the kernel has taken."""
        self.writing_since = None
        if self._answered:
            self._sent()

    def _sent(self) -> None:
        """Go on when the rest of a body that was not waited for has come; the sender sees the answer, not a reset."""
        if self._left:
            self.linger_until = self._loop.time() + LINGER_S
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Go on with what the client has sent meanwhile."""
        self._request = self.linger_until = None
        self._answered = False
        if self._closing or self.last:
            self.close()
            return
        self.idle_until = self._loop.time() + self._server.keepalive_s
        self._server.rest(self)
        if self._ahead:
            self._resume()
            data, self._ahead = self._ahead, b""
            self._receive(data)
            self._server.hold(self, len(self._ahead) + (self._received if self._left else 0))

    def close(self) -> None:
        """Close it when the kernel has what was written."""
        self._closing = True
        if self.transport is not None:
            self.transport.close()

    def _pause(self) -> None:
        if self.transport is not None:
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self.transport is not None:
            self.transport.resume_reading()

    def eof_received(self) -> bool:
        """Keep a connection open for its answer when the client has only finished sending."""
        self.last = True
        if self._left:
            self._cut_short()
        return self._request is not None and self.reading_since is None and not self._closing


class HardenedServer:
    """Makes `Connection`s, ends those that cost too much, and drains.

    Attributes:
        draining: Set from the stop on: each connection ends with its next answer.
        held_bytes: Bytes of requests that are not whole, or not their turn.
        strangers: Connections that are not proved and have no whole request under way, those first that made room for
            none for the longest.
    """

    def __init__(
        self,
        handler: Handler,
        *,
        read_timeout_s: float,
        keepalive_s: float,
        body_max_bytes: int = READING_MAX_BYTES,
        connections_max: int = CONNECTIONS_MAX,
        reading_max_bytes: int = READING_MAX_BYTES,
        on_malformed: Callable[[], None] = lambda: None,
        on_ended: Callable[[Ended], None] = lambda _: None,
    ) -> None:
        """Serve every request with `handler`; say what was no request, and why a connection was ended."""
        self.draining = False
        self.held_bytes = 0
        self.strangers: dict[Connection, None] = {}
        self.body_max_bytes = body_max_bytes
        self.keepalive_s = keepalive_s
        self._handler = handler
        self._on_malformed = on_malformed
        self._on_ended = on_ended
        self._read_timeout_s = read_timeout_s
        self._connections_max = connections_max
        self._reading_max_bytes = reading_max_bytes
        self._loop = asyncio.get_running_loop()
        # With those that were lost while a request of theirs is under way.
        self._connections: dict[Connection, asyncio.Transport] = {}
        self._proved: dict[Connection, None] = {}  # in the order of their last new delivery
        self._holders: dict[Connection, None] = {}  # in the order of arrival of what they hold
        self._arrived: list[Request] = []  # and not taken
        self._taking: asyncio.Handle  # while some have arrived
        self._taken = 0  # how many came before, together
        self._taken_at = -math.inf  # when they were taken; in the loop's time

    def __call__(self) -> Connection:
        """Make the protocol of a new connection."""
        return Connection(self, self._loop)

    def opened(self, newcomer: Connection) -> None:
        """Count a connection, and have another one make room where there are too many."""
        self._connections[newcomer] = cast("asyncio.Transport", newcomer.transport)
        # Those that were ended in this turn of the loop are still counted, and so are the new ones they made room for.
        if len(self._connections) > self._connections_max:
            self.end(next(iter(self.strangers), newcomer), "too_many")
        self.strangers[newcomer] = None

    def lost(self, connection: Connection) -> None:
        """Count a connection no more, once nothing of it is under way."""
        self.forget(connection)
        if not connection.is_busy:
            self._connections.pop(connection, None)

    def put(self, request: Request) -> None:
        """Give a whole request to the handler, with all others of this turn of the loop; under load, of a few ms."""
        if not self._arrived:
            wait_s = GATHER_S if self._taken < BUSY_TURN else GATHER_BUSY_S
            recent = self._loop.time() - self._taken_at < wait_s
            self._taking = self._loop.call_later(wait_s, self._take) if recent else self._loop.call_soon(self._take)
        self.strangers.pop(request.connection, None)
        self._arrived.append(request)
        if len(self._arrived) == len(self._connections):
            self._taking.cancel()
            self._taking = self._loop.call_soon(self._take)

    def _take(self) -> None:
        arrived, self._arrived = self._arrived[:TURN_MAX], self._arrived[TURN_MAX:]
        if self._arrived:
            self._taking = self._loop.call_soon(self._take)
        self._taken, self._taken_at = len(arrived), self._loop.time()
        try:
            self._handler.take(arrived)
        except Exception as exc:  # noqa: BLE001 - a bug must leave no client waiting; what was answered stays so
            for request in arrived:
                request.fail(exc)

    def check(self, request: Request) -> None:
        """Have the handler look at a head whose body has not come."""
        try:
            answer = self._handler.check(request)
        except Exception as exc:  # noqa: BLE001 - as above
            request.fail(exc)
        else:
            if answer is not None:
                request.answer(answer)

    def malformed(self) -> None:
        """Say that something was no request."""
        try:
            self._on_malformed()
        except Exception as exc:  # noqa: BLE001 - it is answered all the same
            log.error("worker.http_failed", code=type(exc).__name__, where=trail(exc))

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

    def rest(self, connection: Connection) -> None:
        """Let a connection make room for another from now on, unless it is proved or has a request under way."""
        if connection not in self._proved and not connection.is_busy:
            self.strangers[connection] = None

    def refresh(self, connection: Connection) -> None:
        """Let a stranger that has sent a head have its answer before it has to make room for another."""
        if connection in self.strangers:
            del self.strangers[connection]
            self.strangers[connection] = None

    def trust(self, connection: Connection) -> None:
        """Note that a connection has carried a new delivery."""
        self.strangers.pop(connection, None)
        self._proved.pop(connection, None)
        self._proved[connection] = None
        if len(self._proved) > self._connections_max // 2:
            oldest = next(iter(self._proved))
            del self._proved[oldest]
            self.rest(oldest)

    def forget(self, connection: Connection) -> None:
        """Count nothing of what a connection holds any more."""
        self.strangers.pop(connection, None)
        self._proved.pop(connection, None)
        self.hold(connection, 0)

    @property
    def open_connections(self) -> int:
        """Connections that are open now; a lost one may still have a delivery under way."""
        return sum(connection.transport is not None for connection in self._connections)

    async def serve(
        self,
        host: str,
        port: int,
        *,
        stop: asyncio.Event,
        drain_s: float,
        section: str = "BRIDGE_HTTP",
        listening: asyncio.Event | None = None,
    ) -> None:
        """Accept until `stop` is set, then answer what is in flight and close.

        Args:
            host: Address or name.
            port: Of TCP.
            stop: See above.
            drain_s: For what is in flight.
            section: What the variables begin with that the address is from.
            listening: Set once connections are taken.

        Raises:
            ConfigError: The address cannot be listened on.
        """
        self._connections_max = min(self._connections_max, _connections_possible(self._connections_max))
        try:
            listener = await self._loop.create_server(self, host, port, backlog=BACKLOG)
        except (OSError, UnicodeError) as exc:  # the latter for a name that cannot be looked up, such as `a..b`
            why = "no such host"
            if isinstance(exc, OSError) and not isinstance(exc, socket.gaierror):
                why = os.strerror(exc.errno or 0)
            msg = f"{section}__HOST, {section}__PORT: cannot listen on {host}:{port} ({why}); choose another"
            raise ConfigError(msg) from None
        if listening is not None:
            listening.set()
        for each in listener.sockets:  # connections inherit it
            each.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_MAX_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_MAX_BYTES)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        try:
            while await pause(stop, TICK_S):
                self._end_slow()
        finally:
            self.draining = True
            waiting = _accept_all(listener.sockets)
            listener.close()
            for accepted in waiting:
                with contextlib.suppress(OSError):  # gone by itself meanwhile
                    await self._loop.connect_accepted_socket(self, accepted)
            await self._drain(drain_s)

    def _end_slow(self) -> None:
        """End the connections that have been waited for too long."""
        now = self._loop.time()
        limit = now - self._read_timeout_s
        for connection in list(self._connections):
            if connection.reading_since is not None and connection.reading_since < limit:
                self.end(connection, "silent" if connection.silent else "slow_request")
            elif connection.writing_since is not None and connection.writing_since < limit:
                self.end(connection, "unread_answer")
            elif (connection.linger_until or math.inf) < now or (connection.idle and connection.idle_until < now):
                connection.close()

    async def _drain(self, drain_s: float) -> None:
        """Close idle connections, let the others give their answer, then close those too."""
        deadline = self._loop.time() + drain_s
        idle: set[Connection] = set()
        while self._connections and self._loop.time() < deadline:
            before, idle = idle, {each for each in self._connections if each.idle}
            for connection in idle & before:  # at first sight its request may have come and not been read yet
                connection.close()
            self._end_slow()
            await asyncio.sleep(0.02)  # connections end by callbacks of the loop; there is no event to wait for
        for connection in list(self._connections):
            if connection.transport is not None:
                connection.transport.abort()


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
