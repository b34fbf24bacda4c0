"""Receivers of HL7 v2 of others' making: one that does what a script says, one as a process of its own."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from hl7.mllp import start_hl7_server

from consumers.hl7v2.mapping import EVENT_PART
from tests.kafka import HANG_S

Act = Callable[[Any, Any, Any], Awaitable[None]]
"""Answers a message: `(message, reader, writer)` of `hl7.mllp`."""


def acknowledges(code: str = "AA", *, condition: str = "", of: str = "", more: str = "") -> Act:
    """Answer as an application does, with an error of table 0357 if there is one; `of` is another's MSH-10."""

    async def act(message: Any, _reader: Any, writer: Any) -> None:
        lines = [
            "MSH|^~\\&|EHR||DRX||20260101000000||ACK^O09^ACK|1|P|2.5.1",
            f"MSA|{code}|{of or control_id(message)}|said by whom it may concern",
        ]
        if condition:
            lines.append(f"ERR||PID^1|{condition}^words|E")
        writer.writeblock("\r".join([*lines, more]).encode())
        await writer.drain()

    return act


def sends(raw: bytes, *, then_closes: bool = False) -> Act:
    async def act(_message: Any, _reader: Any, writer: Any) -> None:
        writer.write(raw)
        await writer.drain()
        if then_closes:
            writer.close()

    return act


async def says_nothing(_message: Any, _reader: Any, _writer: Any) -> None:
    """Leave the sender waiting."""


async def resets(_message: Any, _reader: Any, writer: Any) -> None:
    writer.transport.abort()


def control_id(message: Any) -> str:
    return str(message.segment("MSH")[10])


@dataclass
class Receiver:
    """A server whose acts come by script, one for each message; what follows is acknowledged.

    Attributes:
        taken: Messages that were acknowledged, in order.
        tried: Every message that came, as text.
        connections: How many were opened.
        at_once: The most that were open at one time.
    """

    acts: list[Act] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)
    tried: list[str] = field(default_factory=list)
    connections: int = 0
    at_once: int = 0
    port: int = 0
    _open: int = 0

    async def serve(self, reader: Any, writer: Any) -> None:
        self.connections += 1
        self._open += 1
        self.at_once = max(self.at_once, self._open)
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                self.tried.append(str(message))
                act = self.acts.pop(0) if self.acts else None
                if act is None:
                    self.taken.append(message)
                await (act or acknowledges())(message, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._open -= 1
            writer.close()

    def ids(self) -> list[str]:
        return [control_id(each)[:EVENT_PART] for each in self.taken]


@asynccontextmanager
async def a_receiver(*acts: Act, port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(acts))
    tasks: set[asyncio.Task[None]] = set()
    writers: set[Any] = set()

    async def connected(reader: Any, writer: Any) -> None:
        writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await receiver.serve(reader, writer)

    server = await start_hl7_server(connected, "127.0.0.1", port, encoding="utf-8")
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in writers:
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(HANG_S):
                await asyncio.gather(*tasks)
