"""`drx-bridge topics copy`: copy a topic to another number of partitions, keeping the order of each key.

The partitions of FROM are merged in the order of timestamps, and each record is written to the partition of its key.
The order is the same in each run, so a repeated run skips as many records as earlier runs wrote, and checks that the
last record of each partition is the expected one.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import click
import orjson
from prometheus_client import CollectorRegistry

from bridge.errors import CodedError, ConfigError, NotDurableError
from bridge.kafka.admin import open_admin, topic_specs
from bridge.kafka.connection import KafkaConnection
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.producer import KafkaProducer
from bridge.kafka.reader import TopicReader, open_reader
from bridge.kafka.record import Record, message_bytes
from bridge.kafka.routing import partition
from bridge.runtime.audit import audit_options, audited
from bridge.runtime.failpoints import hit
from bridge.runtime.lifecycle import background
from bridge.runtime.metrics import IngressMetrics
from bridge.runtime.process import bootstrap_option, with_brokers
from bridge.settings import KafkaSettings, load_settings

# Records and bytes in memory: about one producer batch for each of twelve partitions.
_CHUNK_RECORDS = 1_000
_CHUNK_BYTES = 6 * 1024 * 1024
# Seconds for the first connection, and for the shutdown.
_CONNECT_S = 30.0
_CLOSE_S = 5.0
# Seconds between two progress lines.
_SHOW_S = 5.0


class CopyError(CodedError):
    """The copy cannot be finished or is wrong; the message is one line for an operator."""

    retriable = False


@dataclass(slots=True)
class _Copy:
    """Progress of a copy, by partition of the new topic."""

    connection: KafkaConnection
    source: str
    target: str
    partitions: int
    producer: KafkaProducer
    found: Mapping[int, int]  # records that earlier runs wrote
    last_found: Mapping[int, Record]  # the last of `found`
    counts: Counter[int] = field(default_factory=Counter)  # records that belong there, up to now
    last: dict[int, Record] = field(default_factory=dict)  # the last of `counts`
    waiting: defaultdict[int, list[Record]] = field(default_factory=lambda: defaultdict(list))
    size: int = 0  # pending bytes
    number: int = 0  # pending records

    async def run(self) -> None:
        async with open_reader(self.connection, [self.source], from_beginning=True) as reader:
            ends = _by_number(reader)
            total, shown_at = sum(ends.values()), time.monotonic()
            async for record in reader.by_time():
                self._take(record)
                if self.number >= _CHUNK_RECORDS or self.size >= _CHUNK_BYTES:
                    await self._write()
                    if time.monotonic() - shown_at > _SHOW_S:
                        shown_at = time.monotonic()
                        click.echo(f"{self.counts.total():,} of {total:,} records", err=True)
            await self._write()
        if await _ends(self.connection, self.source) != ends:
            raise CopyError(
                "source_grows", f"{self.source} is still written to: stop the bridge or have it spool, and repeat"
            )
        await self._verify()

    def _take(self, consumed: ConsumedRecord) -> None:
        """Add a record to the pending ones, unless an earlier run wrote it."""
        key = consumed.key or b""
        number = partition(key, self.partitions)
        record = _as_written(consumed, self.target, number)
        self.counts[number] += 1
        self.last[number] = record
        if self.counts[number] > self.found[number]:
            self.waiting[number].append(record)
            self.size += message_bytes(record)
            self.number += 1
        elif self.counts[number] == self.found[number] and record != self.last_found[number]:
            raise self._foreign(number)

    async def _write(self) -> None:
        """Write the pending records, each partition in order."""
        await asyncio.gather(*(self._write_to(number, records) for number, records in self.waiting.items()))
        self.waiting.clear()
        self.size = self.number = 0

    async def _write_to(self, number: int, records: list[Record]) -> None:
        while records:
            try:
                written = await self.producer.write(self.target, number, records)
            except NotDurableError as exc:
                # The outcome may be unknown; a repeated run finds out what was written.
                raise CopyError(
                    exc.code, f"{self.target}/{number} cannot be written to ({exc.code}); repeat the command"
                ) from exc
            hit("after_produce")
            del records[:written]

    async def _verify(self) -> None:
        """Compare record counts and last records of the new topic with the expected ones."""
        found, last = await _state(self.connection, self.target)
        for number in range(self.partitions):
            if found[number] != self.counts[number] or last.get(number) != self.last.get(number):
                raise self._foreign(number)

    def _foreign(self, number: int) -> CopyError:
        message = f"{self.target}/{number} is not a copy of {self.source}: delete {self.target}, and repeat"
        return CopyError("not_a_copy", message)


@click.command()
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--partitions", type=click.IntRange(1), required=True, help="Partitions of TO.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document on standard output.")
@bootstrap_option
@audit_options
def copy(
    *, source: str, target: str, partitions: int, bootstrap_servers: str | None, as_json: bool, actor: str, reason: str
) -> int:
    """Write every record of FROM to TO, with another number of partitions; TO is created if missing.

    Nothing else may write to either topic during the copy: stop the bridge, or have it spool. Keys keep their order.
    The command can be interrupted and repeated. Exit 1 if TO does not have the records of FROM, by counts and the last
    record of each partition.
    """
    if source == target:
        raise ConfigError("FROM and TO are the same topic")
    settings = with_brokers(load_settings(), bootstrap_servers)
    with audited("topics.copy", actor=actor, reason=reason, source=source, target=target) as ended:
        try:
            ended.update(asyncio.run(_copied(settings.kafka, source, target, partitions)))
        except CopyError as exc:
            ended |= {"outcome": "failed", "code": exc.code}
            click.echo(orjson.dumps({"topic": target, "ok": False, "code": exc.code}) if as_json else str(exc))
            return 1
    line = f"{target}: {ended['records']:,} records in {partitions} partitions, {ended['copied']:,} of them by this run"
    click.echo(orjson.dumps({"topic": target, "ok": True, **ended}) if as_json else f"{line}; verified")
    return 0


async def _copied(kafka: KafkaSettings, source: str, target: str, partitions: int) -> dict[str, int]:
    connection = kafka.connection
    await _ends(connection, source)  # raises if the topic does not exist
    async with open_admin(connection) as admin:
        (spec,) = topic_specs(
            [source],
            partitions=partitions,
            replication_factor=await admin.default_replication_factor(),
            message_max_bytes=kafka.message_max_bytes,
        )
        await admin.create([replace(spec, name=target)])
    found, last_found = await _state(connection, target)
    if len(found) != partitions:
        raise CopyError("partitions", f"{target} has {len(found)} partitions, not {partitions}: delete it, and repeat")
    producer = KafkaProducer(
        connection=connection, topics=[target], partitions=partitions, metrics=IngressMetrics(CollectorRegistry())
    )
    async with background(producer, drain_timeout_s=_CLOSE_S):
        try:
            async with asyncio.timeout(_CONNECT_S):
                while not producer.ready or producer.wrong_counts:  # noqa: ASYNC110 - the producer has no event for it
                    await asyncio.sleep(0.05)
        except TimeoutError as exc:
            code = producer.code or "not_durable"
            raise CopyError(code, f"{target} cannot be written to ({code}): may this user write to it?") from exc
        work = _Copy(connection, source, target, partitions, producer, found, last_found)
        await work.run()
    return {"records": work.counts.total(), "copied": work.counts.total() - sum(found.values())}


async def _state(connection: KafkaConnection, topic: str) -> tuple[dict[int, int], dict[int, Record]]:
    """Return the end of each partition, and its last record if it has one."""
    ends = await _ends(connection, topic)
    starts = {TopicPartition(topic, number): max(end - 1, 0) for number, end in ends.items()}
    async with open_reader(connection, [topic], from_beginning=True, starts=starts) as reader:
        last = {each.partition: _as_written(each, topic, each.partition) async for each in reader.until_end()}
    return ends, last


async def _ends(connection: KafkaConnection, topic: str) -> dict[int, int]:
    async with open_reader(connection, [topic], from_beginning=False) as reader:
        return _by_number(reader)


def _by_number(reader: TopicReader) -> dict[int, int]:
    return {tp.partition: end for tp, end in reader.ends.items()}


def _as_written(consumed: ConsumedRecord, topic: str, number: int) -> Record:
    headers = list(consumed.headers)
    return Record(topic, number, consumed.key or b"", consumed.value, headers, consumed.timestamp_ms)
