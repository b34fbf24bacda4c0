"""A broker that speaks garbage: something else on its port, or a network that changes bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from bridge.errors import NotDurableError
from bridge.kafka.producer import Patience
from bridge.kafka.record import Record
from tests.cluster import Cluster, Topics
from tests.faults.ingress.proxy import Proxy
from tests.kafka import HANG_S, a_producer, read_all, running, until

pytestmark = pytest.mark.kafka

HASTY = Patience(tick_s=0.05, stalled_s=0.5, silent_s=5.0, retry_first_s=0.01, retry_max_s=0.05)
RNG = random.Random(20_261_126)  # noqa: S311 - guards nothing
# What stands where an answer should. All ones are an array that is null and a text of no length; the first bytes of a
# request are its length, key, version and correlation id, which the answer repeats.
KINDS = (
    b"\xff" * 96,
    b"\x00" * 96,
    b"\x00\x01",
    b"HTTP/1.1 400 Bad Request\r\n\r\n",
    RNG.randbytes(96),
    RNG.randbytes(4096),
)
_HEAD = struct.Struct(">IhhI")


class Garbler:
    """A port that answers every request with garbage, and from `heal` on leads to a broker.

    Attributes:
        answered: Requests that were answered with garbage.
    """

    def __init__(self, upstream: int, garbage: Iterator[bytes], *, framed: bool) -> None:
        self._proxy = Proxy(upstream)
        self._garbage = garbage
        self._framed = framed
        self._healed = False
        self.answered = 0

    def heal(self) -> None:
        self._healed = True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._healed:
            await self._proxy.serve(reader, writer)
            return
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, _key, _version, correlation = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                await reader.readexactly(size + 4 - _HEAD.size)
                answer = struct.pack(">I", correlation) + next(self._garbage)
                writer.write(struct.pack(">I", len(answer)) + answer if self._framed else answer)
                await writer.drain()
                self.answered += 1
        writer.transport.abort()

    async def close(self) -> None:
        await self._proxy.close()


@asynccontextmanager
async def garbled(cluster: Cluster, garbage: Iterator[bytes], *, framed: bool) -> AsyncIterator[tuple[Garbler, str]]:
    garbler = Garbler(int(cluster.bootstrap_servers.rpartition(":")[2]), garbage, framed=framed)
    async with await asyncio.start_server(garbler.serve, "127.0.0.1", 0) as server:
        yield garbler, f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        await garbler.close()


@pytest.mark.parametrize("framed", [True, False], ids=["framed", "unframed"])
async def test_a_producer_outlives_garbage_and_works_when_it_ends(
    cluster: Cluster, topics: Topics, *, framed: bool
) -> None:
    topic = await asyncio.to_thread(topics.fresh)
    record = Record(topic, 0, b"rx_1", b"v", [], 1_772_366_400_000)
    garbage = itertools.cycle(KINDS)
    async with (
        garbled(cluster, garbage, framed=framed) as (garbler, address),
        running(a_producer(address, topic, patience=HASTY)) as producer,
    ):
        await until(lambda: garbler.answered >= 2 * len(KINDS))
        assert not producer.ready
        with pytest.raises(NotDurableError):
            await producer.write(topic, 0, [record])

        garbler.heal()
        await until(lambda: producer.ready and not producer.wrong_counts)
        async with asyncio.timeout(HANG_S):
            assert await producer.write(topic, 0, [record]) == 1

    assert [each.value for each in await read_all(cluster.bootstrap_servers, topic)] == [b"v"]
