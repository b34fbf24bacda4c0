"""A decoder of chunked bodies, strict and with a bound on what is no content."""

from __future__ import annotations

import re

# Framing of a chunked body: this much, and an eighth of its content. A sender has the whole body before it can sign it,
# and libraries send one in chunks of a kilobyte or more. Decoding costs 0.5 us a chunk.
FRAMING_MAX_BYTES = 8_192
FRAMING_SHARE = 8
# Of a line before a chunk, and of the trailer.
CHUNK_LINE_MAX_BYTES = 1_024
# RFC 9112 7.1: the size of a chunk with extensions, and the end of a body with a trailer; each begins with the line end
# before it. Quoted extensions are refused: nobody sends them, and servers do not agree on them.
_TOKEN = rb"[!#-'*+.0-9A-Z^-z|~-]+"
_EXTENSIONS = rb"(?:;%b(?:=%b)?)*" % (_TOKEN, _TOKEN)
_chunk_size = re.compile(rb"\r\n([0-9A-Fa-f]{1,8})%b\r\n" % _EXTENSIONS).match
_chunked_end = re.compile(rb"\r\n0+%b\r\n((?:%b:[\t -~\x80-\xff]*\r\n)*)\r\n" % (_EXTENSIONS, _TOKEN)).match


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
