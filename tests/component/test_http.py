"""Connections of the hardened server, seen from inside at moments that no client can choose."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial

import pytest

from bridge.dev.ports import HOST
from bridge.runtime.http import CONTINUE, OLDEST, TURN_MAX, TURN_MAX_BYTES, Connection, HardenedServer, Request
from bridge.runtime.messages import Answer

HANG_S = 30.0


class Overtaken:
    """Its client closes the connection right behind each answer."""

    kept: bool | None = None

    def check(self, _request: Request) -> None:
        """Have the body come."""

    def take(self, requests: Sequence[Request]) -> None:
        for request in requests:
            request.answer(Answer(200, b"{}"))
            self.kept = request.connection.eof_received()


async def test_a_connection_that_is_closed_right_after_its_answer_is_not_kept() -> None:
    """It would be until the keep-alive time is over, and so would every other of a sender that closes each time."""
    handler = Overtaken()
    server = HardenedServer(handler, read_timeout_s=HANG_S, keepalive_s=HANG_S)
    listener = await asyncio.get_running_loop().create_server(server, HOST, 0)
    async with asyncio.timeout(HANG_S), listener:
        reader, writer = await asyncio.open_connection(*listener.sockets[0].getsockname())
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"{}")
        writer.close()

    assert handler.kept is False


class Patient:
    """Answers when the test says so."""

    def __init__(self) -> None:
        self.taken: list[list[Request]] = []
        self.arrived = asyncio.Event()

    def check(self, _request: Request) -> None:
        """Have the body come."""

    def take(self, requests: Sequence[Request]) -> None:
        self.taken.append(list(requests))
        self.arrived.set()

    async def first(self) -> Request:
        async with asyncio.timeout(HANG_S):
            await self.arrived.wait()
        return self.taken[0][0]


@asynccontextmanager
async def serving(handler: Patient) -> AsyncIterator[tuple[HardenedServer, tuple[str, int]]]:
    server = HardenedServer(handler, read_timeout_s=HANG_S, keepalive_s=HANG_S, body_max_bytes=1_000)
    listener = await asyncio.get_running_loop().create_server(server, HOST, 0)
    async with asyncio.timeout(HANG_S), listener:
        yield server, listener.sockets[0].getsockname()


async def until(true: Callable[[], bool]) -> None:
    while not true():  # noqa: ASYNC110 - bounded by `serving`; no event announces it
        await asyncio.sleep(0.005)


async def test_what_came_in_one_turn_is_taken_together_in_the_order_of_arrival() -> None:
    handler = Patient()
    async with serving(handler) as (server, _):
        connections = [server() for _ in range(3)]
        for number, connection in enumerate(connections):
            connection.connection_made(Quiet())
            connection.data_received(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % number)
        assert handler.taken == []
        await handler.first()

        assert [[request.target for request in turn] for turn in handler.taken] == [["/0", "/1", "/2"]]
        for connection in connections:
            connection.connection_lost(None)


async def test_a_large_turn_lets_the_loop_read_in_between() -> None:
    """Requests of many connections at one moment would hold up all others until the last is answered."""
    handler = Patient()
    async with serving(handler) as (server, _):
        for _ in range(2 * TURN_MAX + 1):
            connection = server()
            connection.connection_made(Quiet())
            connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        sizes = []
        while sum(map(len, handler.taken)) < 2 * TURN_MAX + 1:
            await asyncio.sleep(0)
            sizes.append(sum(map(len, handler.taken)))

        assert sizes[-3:] == [TURN_MAX, 2 * TURN_MAX, 2 * TURN_MAX + 1]


async def test_of_many_the_oldest_go_first_and_then_those_of_proved_connections() -> None:
    """In each turn: where proved connections always have more, another's request would never be taken."""
    handler = Patient()
    async with serving(handler) as (server, _):
        connections = [server() for _ in range(3 * TURN_MAX)]
        for number, connection in enumerate(connections):
            connection.connection_made(Quiet())
            connection.data_received(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % number)
        for connection in connections[TURN_MAX:]:
            server.trust(connection)
        await until(lambda: len(handler.taken) > 1)

        others, proved, most = range(TURN_MAX), range(TURN_MAX, 3 * TURN_MAX), TURN_MAX - OLDEST
        assert [[int(request.target[1:]) for request in turn] for turn in handler.taken[:2]] == [
            [*others[:OLDEST], *proved[:most]],
            [*others[OLDEST : 2 * OLDEST], *proved[most : 2 * most]],
        ]


async def test_a_turn_takes_a_bounded_size_of_bodies() -> None:
    handler = Patient()
    async with serving(handler) as (server, _):
        server.body_max_bytes = TURN_MAX_BYTES
        body = b" " * (TURN_MAX_BYTES // 2)
        for size in (TURN_MAX_BYTES, len(body), len(body), 1):
            connection = server()
            connection.connection_made(Quiet())
            connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size + b" " * size)
        await until(lambda: sum(map(len, handler.taken)) == 4)

        assert [len(turn) for turn in handler.taken] == [1, 2, 1]


class Quiet(asyncio.Transport):
    """A client that takes nothing, or all, as `taken` says."""

    taken = True
    aborted = False
    protocol: Connection

    def abort(self) -> None:
        self.aborted = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        del high, low

    def write(self, data: object) -> None:
        del data
        if not self.taken:
            self.protocol.pause_writing()


async def aborted_at_a_bound_of_two(*, busy: Sequence[int], proved: Sequence[int]) -> list[bool]:
    """Open three connections to a server that has room for two, and return which of them it ends."""
    async with serving(Patient()) as (server, _):
        server._connections_max = 2
        transports = [Quiet() for _ in range(3)]
        connections = [server() for _ in transports]
        for number, (connection, transport) in enumerate(zip(connections, transports, strict=True)):
            connection.connection_made(transport)
            if number in busy:
                connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
            if number in proved:
                server.trust(connection)
        for connection in connections:
            connection.connection_lost(None)
        return [transport.aborted for transport in transports]


async def test_a_request_under_way_makes_room_for_nobody_though_others_are_proved_since() -> None:
    assert await aborted_at_a_bound_of_two(busy=(0, 1, 2), proved=(0, 1, 2)) == [False, False, True]


async def test_where_all_others_are_busy_a_proved_connection_that_is_idle_makes_room() -> None:
    assert await aborted_at_a_bound_of_two(busy=(0,), proved=(1, 2)) == [False, True, False]


async def test_a_client_that_is_lost_before_it_has_taken_its_answer_leaves_nothing() -> None:
    """It would keep a stop waiting until its deadline."""
    handler = Patient()
    async with serving(handler) as (server, _):
        transport = Quiet()
        transport.taken, transport.protocol = False, (connection := server())
        connection.connection_made(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        (await handler.first()).answer(Answer(200, b"{}"))
        assert connection.overdue == "unread_answer"
        connection.connection_lost(None)

        assert (server.open_connections, len(server._connections)) == (0, 0)


async def test_a_client_that_is_lost_before_its_answer_counts_until_then() -> None:
    """A stop waits for what was taken, whether or not its sender does."""
    handler = Patient()
    async with serving(handler) as (server, address):
        _, writer = await asyncio.open_connection(*address)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        request = await handler.first()
        # Linger 0 sends a reset; a mere end of sending keeps the connection open for its answer.
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await until(lambda: server.open_connections == 0)
        assert len(server._connections) == 1
        request.answer(Answer(200, b"{}"))

        assert len(server._connections) == 0


@pytest.mark.parametrize(
    "behind",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://[x]@ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00 no HTTP\r\n\r\n",
        b"GET",
    ],
)
async def test_a_chunked_body_with_something_behind_it_is_answered_and_nothing_else(behind: bytes) -> None:
    handler = Patient()
    async with serving(handler) as (_, address):
        reader, writer = await asyncio.open_connection(*address)
        chunked = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
        writer.write(chunked + behind)
        request = await handler.first()
        assert request.body == b"{}"
        request.answer(Answer(200, b"{}"))
        received = await reader.read()
        writer.close()

    assert received.count(b"HTTP/1.1") == received.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in received


class Doorkeeper:
    """Refuses by the head alone, or has the body come; keeps nothing."""

    def __init__(self, answer: Answer | None) -> None:
        self.answer = answer

    def check(self, request: Request) -> Answer | None:
        if self.answer is None:
            request.invite()
        return self.answer

    def take(self, requests: Sequence[Request]) -> None:
        for request in requests:
            request.answer(Answer(200, b"{}"))


class Spoken(Quiet):
    """A client that keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.received = b""

    def write(self, data: object) -> None:
        assert isinstance(data, bytes)
        self.received += data

    def close(self) -> None:
        """Stay there for the test."""


def _has_taken(handler: Patient, turns: int) -> bool:
    return len(handler.taken) == turns


async def test_a_request_is_answered_once_whatever_its_handler_does_later() -> None:
    handler, transport = Patient(), Spoken()
    async with serving(handler) as (server, _):
        connection = server()
        connection.connection_made(transport)
        for number in range(2):
            connection.data_received(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % number)
            await until(partial(_has_taken, handler, number + 1))
            for _ in range(2):
                handler.taken[0][0].answer(Answer(200, b"{}"))

        assert transport.received.count(b"HTTP/1.1 ") == 1
        connection.connection_lost(None)


@pytest.mark.parametrize("expect", [b"", b"Expect: 100-continue\r\n"])
@pytest.mark.parametrize("framing", [b"Content-Length: 4", b"Transfer-Encoding: chunked"])
async def test_behind_a_body_that_was_not_waited_for_nothing_is_read(framing: bytes, expect: bytes) -> None:
    """A sender that was not asked for it may leave it out, and a proxy has another sender's request follow."""
    server = HardenedServer(Doorkeeper(Answer(415, b"{}")), read_timeout_s=HANG_S, keepalive_s=HANG_S)
    connection, transport = server(), Spoken()
    connection.connection_made(transport)
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\n" + expect + framing + b"\r\n\r\n")
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    connection.connection_lost(None)

    assert transport.received.count(b"HTTP/1.1 ") == transport.received.count(b"HTTP/1.1 415 ") == 1
    assert b"\r\nConnection: close\r\n" in transport.received


@pytest.mark.parametrize(
    "upgrade", [b"", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Connection: upgrade\r\nUpgrade: websocket\r\n"]
)
async def test_no_request_behind_a_chunked_body_is_passed_over(upgrade: bytes) -> None:
    """The next one would get its answer, and a sender of both would take a delivery for accepted that is not."""
    server = HardenedServer(Doorkeeper(Answer(415, b"{}")), read_timeout_s=HANG_S, keepalive_s=HANG_S)
    connection, transport = server(), Spoken()
    connection.connection_made(transport)
    head = b"POST / HTTP/1.1\r\nHost: x\r\n%bTransfer-Encoding: chunked\r\n\r\n"
    connection.data_received(head % upgrade + b"0\r\n\r\n" + head % b"" + b"0\r\n\r\n")
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    connection.connection_lost(None)

    assert transport.received.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize("protocol", [b"h2c", b"websocket"])
async def test_behind_an_upgrade_that_is_declined_requests_are_read_whole(protocol: bytes) -> None:
    """A parser may take what follows for the other protocol."""
    server = HardenedServer(Doorkeeper(None), read_timeout_s=HANG_S, keepalive_s=HANG_S)
    connection, transport = server(), Spoken()
    connection.connection_made(transport)
    plain = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nnull"
    for sent in (b"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: %b\r\n\r\n" % protocol, plain, plain):
        connection.data_received(sent)
        await asyncio.sleep(0)  # the handler has its turn
    connection.connection_lost(None)

    assert transport.received.count(b"HTTP/1.1 ") == transport.received.count(b"HTTP/1.1 200 ") == 3


@pytest.mark.parametrize(("version", "invited"), [(b"1.1", CONTINUE), (b"1.0", b"")])
async def test_only_a_client_that_knows_that_answer_is_asked_for_a_body(version: bytes, invited: bytes) -> None:
    """One of HTTP/1.0 would take it for the answer to its request."""
    server = HardenedServer(Doorkeeper(None), read_timeout_s=HANG_S, keepalive_s=HANG_S)
    connection, transport = server(), Spoken()
    connection.connection_made(transport)
    connection.data_received(b"POST / HTTP/" + version + b"\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    connection.connection_lost(None)

    assert transport.received == invited


async def test_a_body_keeps_its_time_whatever_becomes_of_its_invitation() -> None:
    server = HardenedServer(Doorkeeper(None), read_timeout_s=HANG_S, keepalive_s=HANG_S)
    connection, transport = server(), Quiet()
    transport.taken, transport.protocol = False, connection
    connection.connection_made(transport)
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    due = connection.due
    connection.resume_writing()
    connection.connection_lost(None)

    assert (connection.due, connection.overdue) == (due, "slow_request")


@pytest.mark.parametrize("begun", [b"POST", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"])
async def test_what_comes_piece_by_piece_has_its_time_once(begun: bytes) -> None:
    connection = HardenedServer(Doorkeeper(None), read_timeout_s=HANG_S, keepalive_s=HANG_S)()
    connection.connection_made(Quiet())
    connection.data_received(begun)
    due = connection.due
    connection.data_received(b" ")
    assert (connection.due, connection.overdue) == (due, "slow_request")
    connection.connection_lost(None)


async def test_what_is_too_large_is_taken_before_it_is_whole_and_answered_once() -> None:
    """The handler says so; the client has gone before, or sends no HTTP behind."""
    for rest in (b"", b"zz\r\n"):
        handler = Patient()
        async with serving(handler) as (_, address):
            reader, writer = await asyncio.open_connection(*address)
            head = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
            writer.write(head + b"%x\r\n%b\r\n" % (2_000, b"x" * 2_000))
            request = await handler.first()
            writer.write(rest)
            writer.write_eof()
            await until(partial(getattr, request.connection, "last"))
            assert len(request.body) > 1_000
            request.answer(Answer(413, b"{}"))
            received = await reader.read()
            writer.close()

        assert received.count(b"HTTP/1.1") == received.count(b"HTTP/1.1 413 ") == 1


class Broken(Patient):
    def take(self, requests: Sequence[Request]) -> None:
        requests[0].answer(Answer(200, b"{}"))
        raise KeyError(requests)


async def test_a_bug_of_the_handler_is_answered_500_where_nothing_was_answered() -> None:
    async with serving(Broken()) as (_, address):
        answers = []
        streams = [await asyncio.open_connection(*address) for _ in range(2)]
        for _, writer in streams:
            writer.write(b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        for reader, writer in streams:
            answers.append(await reader.read())
            writer.close()

    assert [answer.count(b"HTTP/1.1") for answer in answers] == [1, 1]
    assert answers[0].startswith(b"HTTP/1.1 200 ")
