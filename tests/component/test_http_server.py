"""Connections of the hardened server, observed from inside at times that no client can choose."""

import asyncio
import gc
import socket
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from itertools import count

import pytest
import uvloop

from bridge.runtime.http_server import (
    CONTINUE,
    TURN_MAX,
    TURN_MAX_BYTES,
    ClientConnection,
    HardenedServer,
    Request,
    Response,
)
from bridge.runtime.sockets import ACCEPT_MAX
from tests.component.test_ingress import StubTransport
from tests.waiting import HANG_S, until


class Patient:
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
    server = HardenedServer(handler, read_timeout_s=HANG_S, body_max_bytes=1_000)
    async with asyncio.timeout(HANG_S), await server._listen() as listener:
        yield server, listener.sockets[0].getsockname()


async def test_a_turn_takes_a_bounded_number_of_requests_in_the_order_of_arrival() -> None:
    handler = Patient()
    async with serving(handler) as (server, _):
        for number in range(3 * TURN_MAX // 2):
            connection = server()
            connection.connection_made(Quiet())
            connection.data_received(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" % number)
        await until(lambda: len(handler.taken) == 2)

        assert [len(turn) for turn in handler.taken] == [TURN_MAX, TURN_MAX // 2]
        assert [request.path for turn in handler.taken for request in turn] == [
            f"/{n}" for n in range(3 * TURN_MAX // 2)
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


class Quiet(StubTransport):
    """A client that accepts no bytes, or all, as `taken` sets."""

    taken = True
    protocol: ClientConnection

    def write(self, data: object) -> None:
        del data
        if not self.taken:
            self.protocol.pause_writing()


async def aborted_at_a_bound_of_two(*, busy: Sequence[int], proved: Sequence[int]) -> list[bool]:
    """Open three connections to a server that has room for two, and return which of them it ends."""
    async with serving(Patient()) as (server, _):
        server._connections_max = 2
        connections, transports = [server() for _ in range(3)], [Quiet() for _ in range(3)]
        for number, (connection, transport) in enumerate(zip(connections, transports, strict=True)):
            connection.connection_made(transport)
            if number in busy and not transport.aborted:
                connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
                while connection.ahead:  # noqa: ASYNC110 - until its handler is about to begin
                    await asyncio.sleep(0)
            connection.is_trusted = number in proved
        aborted = [transport.aborted for transport in transports]
        for connection in connections:
            connection.connection_lost(None)
        return aborted


@pytest.mark.parametrize(
    ("busy", "proved", "aborted"),
    [((0, 1, 2), (0, 1, 2), [False, False, True]), ((0,), (1, 2), [False, True, False])],
    ids=["a request under way makes room for nobody", "a proved connection that is idle does"],
)
async def test_a_connection_beyond_the_bound_takes_the_place_of_an_idle_one(
    busy: Sequence[int], proved: Sequence[int], aborted: list[bool]
) -> None:
    assert await aborted_at_a_bound_of_two(busy=busy, proved=proved) == aborted


async def test_a_connection_beyond_the_bound_does_not_need_a_look_at_all_others() -> None:
    """A crowd on a busy machine would keep senders waiting for longer than they do."""
    looked: list[ClientConnection] = []

    class Watched(ClientConnection):
        @property
        def ahead(self) -> int:
            looked.append(self)
            return super().ahead

    async with serving(Patient()) as (server, _):
        server._connections_max = 100
        connections = [Watched(server) for _ in range(101)]
        for connection in connections:
            connection.connection_made(Quiet())
        assert looked == connections[:1]
        for connection in connections:
            connection.connection_lost(None)


def test_a_low_limit_of_open_files_lowers_the_bound() -> None:
    """A crowd would take the files that the spool and the probes need."""
    code = """
import asyncio, resource
from bridge.runtime.http_server import HardenedServer
resource.setrlimit(resource.RLIMIT_NOFILE, (700, 700))
async def main():
    server, stop = HardenedServer(None, read_timeout_s=1, connections_max=2_048), asyncio.Event()
    stop.set()
    await server.run(stop)
    print(server._connections_max)
asyncio.run(main())
"""
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "444\n"  # noqa: S603 - ours


async def test_a_client_that_is_lost_before_it_has_taken_its_answer_leaves_nothing() -> None:
    """It would keep a stop waiting until its deadline."""
    handler = Patient()
    async with serving(handler) as (server, _):
        transport = Quiet()
        transport.taken, transport.protocol = False, (connection := server())
        connection.connection_made(transport)
        connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
        (await handler.first()).respond(Response(200, b"{}"))
        await until(lambda: connection.overdue == "unread_answer")
        connection.connection_lost(None)

        await until(lambda: (server.open_connections, len(server.connections)) == (0, 0))


def test_waiting_connections_are_accepted_in_a_few_iterations() -> None:
    """uvloop, which the product runs on, accepts one per iteration: a sender would wait behind each of a flood."""

    async def iterations() -> int:
        async with serving(Patient()) as (server, address):
            with ExitStack() as clients:
                for _ in range(4 * ACCEPT_MAX):
                    clients.enter_context(socket.create_connection(address))
                for number in count():
                    if server.open_connections == 4 * ACCEPT_MAX:
                        return number
                    await asyncio.sleep(0)
        raise AssertionError

    assert uvloop.run(iterations()) < ACCEPT_MAX


class Inviting:
    """Has the body come; keeps nothing."""

    def check(self, request: Request) -> None:
        request.invite()

    def take(self, requests: Sequence[Request]) -> None:
        for request in requests:
            request.respond(Response(200, b"{}"))


class Spoken(Quiet):
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
                handler.taken[0][0].respond(Response(200, b"{}"))

        assert transport.received.count(b"HTTP/1.1 ") == 1
        connection.connection_lost(None)


async def turns() -> None:
    """Let received requests be served, and their responses be written."""
    for _ in range(20):
        await asyncio.sleep(0)


async def sent(*parts: bytes) -> bytes:
    """Return what a client receives that sends these parts, a turn of the loop each."""
    connection = HardenedServer(Inviting(), read_timeout_s=HANG_S)()
    connection.connection_made(transport := Spoken())
    for part in parts:
        connection.data_received(part)
        await turns()
    connection.connection_lost(None)
    return transport.received


@pytest.mark.parametrize(("version", "invited"), [(b"1.1", CONTINUE), (b"1.0", b"")])
async def test_only_a_client_that_knows_that_answer_is_asked_for_a_body(version: bytes, invited: bytes) -> None:
    """One of HTTP/1.0 would take it for the answer to its request."""
    assert await sent(b"POST / HTTP/" + version + b"\r\nHost: x\r\nContent-Length: 4\r\n\r\n") == invited


async def test_a_body_keeps_its_time_whatever_becomes_of_its_invitation() -> None:
    connection, transport = HardenedServer(Inviting(), read_timeout_s=HANG_S)(), Quiet()
    transport.taken, transport.protocol = False, connection
    connection.connection_made(transport)
    connection.data_received(b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n")
    await turns()
    due = connection.due
    connection.resume_writing()
    connection.connection_lost(None)

    assert (connection.due, connection.overdue) == (due, "slow_request")


@pytest.mark.parametrize("begun", [b"POST", b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{"])
async def test_what_comes_piece_by_piece_has_its_time_once(begun: bytes) -> None:
    connection = HardenedServer(Inviting(), read_timeout_s=HANG_S)()
    connection.connection_made(Quiet())
    connection.data_received(begun)
    await turns()
    due = connection.due
    connection.data_received(b" ")
    assert (connection.due, connection.overdue) == (due, "slow_request")
    connection.connection_lost(None)


class Broken(Patient):
    def take(self, requests: Sequence[Request]) -> None:
        requests[0].respond(Response(200, b"{}"))
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


CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "sent",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"1\r\nx\r\n" * 30_000,
    ],
    ids=["a part of a body", "malformed", "tiny chunks"],
)
async def test_what_a_client_has_sent_is_freed_with_its_connection(sent: bytes) -> None:
    """A collection of garbage is rare, and what a client without a secret sends may be much."""
    async with serving(Patient()) as (server, address):
        gc.collect()
        gc.disable()
        try:
            _, writer = await asyncio.open_connection(*address)
            await until(lambda: bool(server.connections))
            connection = weakref.ref(server.connections[0])
            writer.write(sent)
            await turns()
            writer.transport.abort()
            await until(lambda: connection() is None)
        finally:
            gc.enable()
