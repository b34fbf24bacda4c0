"""What `runtime/http.py` relies on of aiohttp's parser, which is not documented; an upgrade that changes it fails."""

from __future__ import annotations

import ast
import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp.http import HttpProcessingError, HttpRequestParser

from bridge.runtime import http
from bridge.runtime.http import STREAM_LIMIT_BYTES, _parse, _parser

HEAD = b"POST /webhooks/drx?x=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
# What a transport reads at once, at most: uvloop's buffer.
READ_BYTES = 262_144


class Unpausable:
    """As the one of `runtime/http.py`, but a pause is an error."""

    _reading_paused = False

    def pause_reading(self) -> None:
        raise AssertionError

    def resume_reading(self, *, resume_parser: bool = True) -> None:
        del resume_parser


@pytest.fixture
def parser() -> Iterator[Any]:
    """One that has bodies."""
    loop = asyncio.new_event_loop()
    yield HttpRequestParser(cast("Any", Unpausable()), loop, STREAM_LIMIT_BYTES, auto_decompress=False)
    loop.close()


@pytest.fixture
def heads() -> Iterator[Any]:
    """One that takes heads alone."""
    loop = asyncio.new_event_loop()
    yield _parser(loop, with_body=False)
    loop.close()


@pytest.mark.parametrize("body", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 0", b"X: x"])
@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
def test_heads_are_taken_one_after_the_other_without_their_bodies(heads: Any, body: bytes, upgrade: bytes) -> None:
    for _ in range(3):
        ((message, _),) = _parse(heads, HEAD + upgrade + body + b"\r\n\r\n")

        assert message.chunked == (b"chunked" in body)
        assert message.headers.get("Content-Length", "5") in {"5", "0"}


def test_only_these_names_of_aiohttp_are_used() -> None:
    tree = ast.parse(Path(http.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.module, each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp")
        for each in node.names
    }

    assert imported == {("aiohttp.http", "HttpProcessingError"), ("aiohttp.http", "HttpRequestParser")}


def test_a_whole_request_comes_as_one_message_with_its_body(parser: Any) -> None:
    ((message, payload),), upgraded, tail = parser.feed_data(HEAD + b"Content-Length: 2\r\n\r\n{}")

    assert (upgraded, tail) == (False, b"")
    assert (message.method, message.path) == ("POST", "/webhooks/drx?x=1")
    assert (message.version, message.should_close, message.chunked) == ((1, 1), False, False)
    assert message.raw_headers[1] == (b"Content-Type", b"application/json")
    assert message.headers["content-type"] == "application/json"
    assert message.headers.getall("Content-Length") == ["2"]
    assert payload.is_eof()
    assert payload.read_nowait() == b"{}"


def test_a_request_without_a_body_has_an_empty_one(parser: Any) -> None:
    ((message, payload),), _, _ = parser.feed_data(b"GET http://h/livez HTTP/1.0\r\n\r\n")

    assert message.version == (1, 0)
    assert message.should_close
    assert message.url.raw_path == "/livez"
    assert (payload.is_eof(), payload.read_nowait()) == (True, b"")


def test_a_body_is_taken_out_part_by_part(parser: Any) -> None:
    ((_, payload),), _, _ = parser.feed_data(HEAD + b"Content-Length: 4\r\n\r\n{")
    first = payload.read_nowait(), payload.read_nowait(), payload.is_eof()
    assert not parser.feed_data(b"  }")[0]

    assert first == (b"{", b"", False)
    assert (payload.read_nowait(), payload.is_eof()) == (b"  }", True)


def test_no_read_is_so_large_that_the_stream_asks_for_a_pause(parser: Any) -> None:
    """Of one byte a chunk, which makes the most chunks of a read; again and again, taken out in between."""
    ((_, payload),), _, _ = parser.feed_data(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
    part = b"1\r\nx\r\n" * (READ_BYTES // 6)
    for _ in range(4):
        parser.feed_data(part)
        assert len(payload.read_nowait()) == READ_BYTES // 6
    for _ in range(4):
        parser.feed_data(b"%x\r\n%b\r\n" % (READ_BYTES, b"x" * READ_BYTES))
        assert len(payload.read_nowait()) == READ_BYTES
    parser.feed_data(b"0\r\n\r\n")

    assert payload.is_eof()


def test_a_compressed_body_stays_as_it_is(parser: Any) -> None:
    body = gzip.compress(b"{}")
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    ((_, payload),), _, _ = parser.feed_data(head + body)

    assert payload.read_nowait() == body


def test_an_upgrade_that_is_declined_leaves_the_parser_in_http(parser: Any) -> None:
    asked = HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    assert parser.feed_data(asked)[1]
    parser.set_upgraded(False)
    messages, upgraded, _ = parser.feed_data(HEAD + b"Content-Length: 0\r\n\r\n")

    assert (len(messages), upgraded) == (1, False)


@pytest.mark.parametrize("length", [b"", b"-1", b"+1", b"1 2", b"0x1", b"1_0", b"\xd9\xa1", b"99999999999999999999"])
def test_a_length_that_is_none_is_an_error(heads: Any, length: bytes) -> None:
    """What is left are ASCII digits, for `int`."""
    with pytest.raises(HttpProcessingError):
        heads.feed_data(HEAD + b"Content-Length: " + length + b"\r\n\r\n")


@pytest.mark.parametrize(
    "bad",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
        HEAD + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        HEAD + b"X: " + b"x" * 8_191 + b"\r\n\r\n",
        HEAD + b"X: x\r\n" * 129 + b"\r\n",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
@pytest.mark.parametrize("kind", ["parser", "heads"])
def test_what_is_no_http_raises_one_kind_of_error(request: pytest.FixtureRequest, kind: str, bad: bytes) -> None:
    with pytest.raises(HttpProcessingError):
        request.getfixturevalue(kind).feed_data(bad)
