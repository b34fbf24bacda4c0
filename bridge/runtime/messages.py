"""Messages of HTTP/1.1 as bytes: heads are parsed strictly, bodies come in parts, answers are prepared.

Of aiohttp only its parser is used, for heads. We rely on behaviour of it that is not documented; the cases of
`tests/data/raw_http` fail if an upgrade changes it.
"""

import asyncio
import re
from functools import lru_cache
from http import HTTPStatus
from typing import Any

from aiohttp.http import HttpRequestParser

JSON_TYPE = "application/json"
# A head of ours is below 1 KiB, and no field of it is above 8 KiB; as nginx, which takes four buffers of 8 KiB.
HEAD_MAX_BYTES = 32_768
HEAD_END = b"\r\n\r\n"
# Digits of a Content-Length: more than any body needs, and `int` refuses thousands of digits.
LENGTH_DIGITS = 18
# RFC 9112 3: one space on either side of the target. The parser would take more of them, and other versions or none.
_request_line = re.compile(rb"(?!CONNECT )[!-~]+ [!-~]+ HTTP/1\.[01]\r\n").match
# Framing of a chunked body: this much, and an eighth of its content. A sender has the whole body before it can sign it,
# and libraries send one in chunks of a kilobyte or more. Decoding costs 0.5 us a chunk.
FRAMING_MAX_BYTES = 8_192
FRAMING_SHARE = 8
# Bytes of a line before a chunk, and of the trailer.
CHUNK_LINE_MAX_BYTES = 1_024
# RFC 9112 7.1: the size of a chunk with extensions, and the end of a body with a trailer; each begins with the line end
# before it. Quoted extensions are refused: nobody sends them, and servers do not agree on them.
_TOKEN = rb"[!#-'*+.0-9A-Z^-z|~-]+"
_EXTENSIONS = rb"(?:;%b(?:=%b)?)*" % (_TOKEN, _TOKEN)
_chunk_size = re.compile(rb"\r\n([0-9A-Fa-f]{1,8})%b\r\n" % _EXTENSIONS).match
_chunked_end = re.compile(rb"\r\n0+%b\r\n((?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % (_EXTENSIONS, _TOKEN)).match


@lru_cache(maxsize=1024)
def _head(status: int, content_type: str, headers: tuple[tuple[str, str], ...], length: int) -> bytes:
    lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", f"Content-Type: {content_type}"]
    lines += [f"{name}: {value}" for name, value in headers]
    lines.append(f"Content-Length: {length}")
    return "\r\n".join(lines).encode("ascii")


class Answer:
    """A whole HTTP answer as prepared bytes; one object may serve many requests. `close` ends the connection."""

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
        self.head = _head(status, content_type, headers, len(body))
        self.body = body
        self.status = status
        self.close = close


MALFORMED = Answer(400, b'{"outcome":"refused","code":"malformed_http"}', close=True)
FAILED = Answer(500, b'{"outcome":"unavailable","code":"internal_error"}', close=True)


class _Unpaused:
    """The protocol that aiohttp's parser asks for; heads have no body that it could pause."""

    _reading_paused = False


def heads_parser(loop: asyncio.AbstractEventLoop) -> Any:
    """Make a parser of consecutive heads; the limit is one of body streams, which are not used."""
    unused: Any = _Unpaused()
    return HttpRequestParser(unused, loop, 65_536, response_with_body=False, auto_decompress=False)


def parse_head(parser: Any, head: bytes) -> Any:
    """Return the request that is `head`; None if it is none, or the parser sees its end elsewhere than we do."""
    if len(head) > HEAD_MAX_BYTES or not _request_line(head):
        return None
    try:
        messages, upgraded, _ = parser.feed_data(head)
    except Exception:  # noqa: BLE001 - what is no HTTP has several: yarl has an IndexError for `http://[x]@`
        return None
    if upgraded:  # never by us; without this the parser would pass over all that follows
        parser.set_upgraded(False)
    if len(messages) != 1:
        return None
    message = messages[0][0]
    if "Transfer-Encoding" in message.headers:
        # No coding but chunked, as RFC 9112 6.1 wants; the parser passes over an empty one.
        codings = ",".join(message.headers.getall("Transfer-Encoding")).lower()
        return message if message.chunked and codings == "chunked" and message.version >= (1, 1) else None
    return message if len(message.headers.get("Content-Length", "")) <= LENGTH_DIGITS else None


class Chunked:
    """Decodes a chunked body as it comes, strictly and with a bound on what is no content."""

    __slots__ = ("_framing", "_left", "_line", "_size", "is_last", "is_whole")

    def __init__(self) -> None:
        self._line = b"\r\n"  # of an incomplete line; at first the end of the head
        self._left = 0  # of the content of a chunk
        self._framing = 0
        self._size = 0
        self.is_whole = False  # the end of the body has arrived
        # The end has a trailer, or something behind it; the connection takes no further request then.
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
                self._size += len(part)
            line = None if self._left else _chunk_size(data, at)
            if line is None or not (size := int(line[1], 16)):
                break
            self._framing += line.end() - at
            if self._framing > FRAMING_MAX_BYTES + self._size // FRAMING_SHARE:
                return None
            at = line.end()
            self._left = size
        if line is not None and (end := _chunked_end(data, at)):
            self.is_whole, self.is_last = True, bool(end[1]) or end.end() < len(data)
        elif data.find(b"\r\n\r\n" if line else b"\r\n", at + 1) >= 0 or len(data) - at > CHUNK_LINE_MAX_BYTES:
            return None
        self._line = data[at:]
        return b"".join(parts)
