"""The demo's own eyes on Kafka: reads what the topics hold, apart from the part that wrote it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from bridge.avro.event_decoder import EventDecoder
from bridge.dev.stack import TOPICS
from bridge.errors import DecodeError
from bridge.kafka.connection import Connection
from bridge.kafka.reader import TopicReader, open_reader
from bridge.kafka.transport import ConsumedRecord

# A record is there before its delivery is answered; beyond this it is lost.
FIND_S = 10.0


@dataclass(frozen=True, slots=True)
class Seen:
    """One record read back.

    Attributes:
        payload: Its bytes as Kafka holds them.
        record: Full name of the Avro record; empty if the payload cannot be decoded, and then `value` is empty too.
    """

    topic: str
    partition: int
    offset: int
    key: str
    headers: Mapping[str, str] = field(repr=False)
    payload: bytes = field(repr=False)
    record: str = ""
    value: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def place(self) -> str:
        """Topic, partition and offset in one word."""
        return f"{self.topic}/{self.partition}@{self.offset}"


class KafkaWitness:
    """Follows the topics of the contract and keeps what comes."""

    def __init__(self, *, connection: Connection, decoder: EventDecoder) -> None:
        """Say where to look and how to decode; `follow` must run for `find` to see anything."""
        self._connection = connection
        self._decoder = decoder
        self._seen: list[Seen] = []
        self._news = asyncio.Event()

    async def follow(self, reader: TopicReader) -> None:
        """Keep what comes, until cancelled."""
        async for record in reader.forever():
            self._seen.append(await self._decoded(record))
            self._news.set()

    async def find(self, delivery_id: str) -> list[Seen]:
        """Return the records of one event or delivery as soon as there is one; none after `FIND_S`."""
        try:
            async with asyncio.timeout(FIND_S):
                while not (found := with_id(self._seen, delivery_id)):
                    self._news.clear()
                    await self._news.wait()
        except TimeoutError:
            return []
        return found

    async def everything(self) -> list[Seen]:
        """Read all topics anew, from their first record to the last."""
        async with open_reader(self._connection, TOPICS, from_beginning=True) as reader:
            return [await self._decoded(record) async for record in reader.until_end()]

    async def _decoded(self, record: ConsumedRecord) -> Seen:
        payload = record.value or b""
        try:
            decoded = await self._decoder.inspect(record)
            name, value = decoded.record, decoded.value
        except DecodeError:
            name, value = "", {}
        headers = {header: content.decode("utf-8", "replace") for header, content in record.headers}
        key = (record.key or b"").decode("utf-8", "replace")
        return Seen(record.topic, record.partition, record.offset, key, headers, payload, name, value)


@asynccontextmanager
async def open_witness(connection: Connection, decoder: EventDecoder) -> AsyncIterator[KafkaWitness]:
    """Open a witness that has seen nothing yet and misses nothing from here on."""
    witness = KafkaWitness(connection=connection, decoder=decoder)
    async with open_reader(connection, TOPICS, from_beginning=False) as reader:
        following = asyncio.create_task(witness.follow(reader))
        try:
            yield witness
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)


def with_id(seen: Sequence[Seen], delivery_id: str) -> list[Seen]:
    """Return the records of one event or delivery."""
    return [each for each in seen if each.headers.get("ce_id") == delivery_id]


def holding(seen: Sequence[Seen], marker: str) -> list[Seen]:
    """Return the records that hold a text anywhere: key, headers or bytes."""
    sought = marker.encode()
    return [
        each
        for each in seen
        if marker in each.key or any(marker in content for content in each.headers.values()) or sought in each.payload
    ]
