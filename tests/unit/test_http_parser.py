"""What `runtime/messages.py` relies on of aiohttp's parser, which is not documented; an upgrade may change it."""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp.http import HttpProcessingError

from bridge.runtime import messages
from bridge.runtime.messages import heads_parser, parse_head

HEAD = b"POST /webhooks/drx?x=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"


@pytest.fixture
def heads() -> Iterator[Any]:
    """One that takes heads alone."""
    loop = asyncio.new_event_loop()
    yield heads_parser(loop)
    loop.close()


@pytest.mark.parametrize("body", [b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Content-Length: 0", b"X: x"])
@pytest.mark.parametrize("upgrade", [b"", b"Connection: upgrade\r\nUpgrade: websocket\r\n"])
def test_heads_are_taken_one_after_the_other_without_their_bodies(heads: Any, body: bytes, upgrade: bytes) -> None:
    for _ in range(3):
        message = parse_head(heads, HEAD + upgrade + body + b"\r\n\r\n")

        assert message.chunked == (b"chunked" in body)
        assert message.headers.get("Content-Length", "5") in {"5", "0"}


def test_only_these_names_of_aiohttp_are_used() -> None:
    tree = ast.parse(Path(messages.__file__).read_text(encoding="utf-8"))
    imported = {
        (node.module, each.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("aiohttp")
        for each in node.names
    }

    assert imported == {("aiohttp.http", "HttpRequestParser")}


def test_a_head_comes_as_one_message(heads: Any) -> None:
    ((message, _),), upgraded, tail = heads.feed_data(HEAD + b"Content-Length: 2\r\n\r\n")

    assert (upgraded, tail) == (False, b"")
    assert (message.method, message.path) == ("POST", "/webhooks/drx?x=1")
    assert (message.version, message.should_close, message.chunked) == ((1, 1), False, False)
    assert message.raw_headers[1] == (b"Content-Type", b"application/json")
    assert message.headers["content-type"] == "application/json"
    assert message.headers.getall("Content-Length") == ["2"]


def test_a_head_of_http_1_0_in_absolute_form(heads: Any) -> None:
    ((message, _),), _, _ = heads.feed_data(b"GET http://h/livez HTTP/1.0\r\n\r\n")

    assert message.version == (1, 0)
    assert message.should_close
    assert message.url.raw_path == "/livez"


def test_an_upgrade_that_is_declined_leaves_the_parser_in_http(heads: Any) -> None:
    asked = HEAD + b"Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 0\r\n\r\n"
    assert heads.feed_data(asked)[1]
    heads.set_upgraded(False)
    messages, upgraded, _ = heads.feed_data(HEAD + b"Content-Length: 0\r\n\r\n")

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
    ],
)
def test_what_is_no_http_raises_one_kind_of_error(heads: Any, bad: bytes) -> None:
    with pytest.raises(HttpProcessingError):
        heads.feed_data(bad)
