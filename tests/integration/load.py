"""Two kinds of traffic that outlive a fault and remember what they were promised."""

import asyncio
from itertools import count

from tests.builders import a_body, signed_headers
from tests.integration.ingress_process import IngressProcess


class Traffic:
    """Open-loop traffic on kept-alive connections, by a client that knows when a request has left it.

    Attributes:
        sent: Ids whose every byte the kernel has taken.
        statuses: Id to the status answered; no entry where the connection ended instead.
        flowing: Set when enough has been answered for all connections to be in use.
    """

    def __init__(self, ingress: IngressProcess) -> None:
        self._ingress = ingress
        self._address = ingress.url.removeprefix("http://").split(":")
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._closed = False
        self._numbers = count()
        self.sent: list[str] = []
        self.statuses: dict[str, int] = {}
        self.flowing = asyncio.Event()

    async def more(self, number: int) -> None:
        wanted = len(self.sent) + number
        while len(self.sent) < wanted:  # noqa: ASYNC110 - a hundred events would be one each
            await asyncio.sleep(0)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as group:
            while not self._closed:
                group.create_task(self._deliver(f"evt_{next(self._numbers)}"))
                await asyncio.sleep(0.002)  # an arrival rate, not a wait for anything
        for _, writer in self._idle:
            writer.close()

    async def _deliver(self, webhook_id: str) -> None:
        try:
            reader, writer = self._idle.pop() if self._idle else await asyncio.open_connection(*self._address)
        except ConnectionError:
            self._closed = True
            return
        try:
            await self._exchange(webhook_id, reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            writer.close()

    async def _exchange(self, webhook_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self._request(webhook_id))
        if not writer.transport.get_write_buffer_size() and not writer.is_closing():
            self.sent.append(webhook_id)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readuntil(b"}")
        self.statuses[webhook_id] = int(head.split()[1])
        if len(self.statuses) >= 300:
            self.flowing.set()
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((reader, writer))

    def _request(self, webhook_id: str) -> bytes:
        body = a_body(id=webhook_id, data_prescription_id=f"rx-{len(self.sent) % 50}")
        headers = signed_headers(body, webhook_id=webhook_id) | {"content-length": str(len(body))}
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"POST /webhooks/{self._ingress.source} HTTP/1.1\r\nHost: x\r\n{lines}\r\n".encode() + body
