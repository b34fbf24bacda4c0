"""Fills a topic quickly with many complete prescription histories: records exactly as the ingress writes them.

A few histories are generated, mapped and encoded in full; every further one is a copy of one of them with other ids and
times, made by joining bytes. Written events are not stored but computed again: an oracle gets the events of one
prescription at a time.
"""

import random
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from itertools import accumulate, count, islice
from typing import cast

from confluent_kafka import Producer

from bridge.event import Event
from bridge.kafka.record import Record
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC, partition
from tests.originals import ORIGINALS, Told, copy, decoded, originals

# Of the first story.
FIRST_DAY = date(2026, 1, 5)
PARTITIONS = 12
# Prescriptions in progress at one time: a batch of one partition (200 records) has few events of the same one, as in a
# real stream, where a history takes weeks.
AT_ONCE = 5_000
# Copies of one history are this far apart; the microsecond keeps their times distinct.
_APART = timedelta(seconds=37, microseconds=1)
# The last of the headers; it has the order of acceptance.
_ORDINAL = "drx_ordinal"
# librdkafka's queue is full: let it send.
_FULL_S = 0.5
_FLUSH_S = 120.0


@dataclass(frozen=True, slots=True)
class Lives:
    """The complete histories of `prescriptions` prescriptions; equal arguments give equal bytes."""

    prescriptions: int  # numbered from 0
    seed: int = 1  # of people and medicines, and of the order in which prescriptions take turns
    # Events are received on the day of the first ones, as in a large log; histories jump back in time for that.
    one_day: bool = False

    @classmethod
    def of_records(cls, least: int, *, seed: int = 1, one_day: bool = False) -> "Lives":
        ends = list(accumulate(map(len, originals(seed))))
        rounds, rest = divmod(least, ends[-1])
        return cls(rounds * ORIGINALS + (bisect_left(ends, rest) + 1 if rest else 0), seed=seed, one_day=one_day)

    @property
    def count(self) -> int:
        lengths = [len(life) for life in originals(self.seed)]
        rounds, rest = divmod(self.prescriptions, ORIGINALS)
        return rounds * sum(lengths) + sum(lengths[:rest])

    def records(self, topic: str = PRESCRIPTIONS_TOPIC, *, partitions: int = PARTITIONS) -> Iterator[Record]:
        """Yield every record in the order of writing: prescriptions alternate, each in its order."""
        rng = random.Random(self.seed)  # noqa: S311 - test traffic, not keys
        waiting = (self._told(number, topic, partitions) for number in range(self.prescriptions))
        running = list(islice(waiting, AT_ONCE))
        ordinals = count(1)
        while running:
            place = rng.randrange(len(running))
            record = next(running[place], None)
            if record is not None:
                record.headers[-1] = (_ORDINAL, b"filler:%d" % next(ordinals))
                yield record
            elif (following := next(waiting, None)) is not None:
                running[place] = following
            else:
                running[place] = running[-1]
                running.pop()

    def prescription_id(self, prescription: int) -> str:
        return f"rx_{_token(prescription)}"

    def event_ids(self, prescription: int) -> list[str]:
        told, _ = self._life(prescription)
        return [_event_id(prescription, index) for index in range(len(told))]

    def ids(self) -> dict[str, list[str]]:
        """Ids of the events of each prescription, in order."""
        return {self.prescription_id(number): self.event_ids(number) for number in range(self.prescriptions)}

    def events(self, prescription: int) -> list[Event]:
        """Events of one prescription in order, as a consumer decodes them."""
        return [decoded(record) for record in self._told(prescription, PRESCRIPTIONS_TOPIC, PARTITIONS)]

    def _life(self, prescription: int) -> tuple[Told, timedelta]:
        """Return the original of a copy, and its shift in time."""
        copies, original = divmod(prescription, ORIGINALS)
        return originals(self.seed)[original], copies * _APART

    def _told(self, prescription: int, topic: str, partitions: int) -> Iterator[Record]:
        token = _token(prescription).encode()
        place = partition(b"rx_" + token, partitions)
        told, shift = self._life(prescription)
        for index, original in enumerate(told):
            received_at = original.event.received_at + shift
            days = (received_at.date() - FIRST_DAY).days if self.one_day else 0
            record = copy(original, _event_id(prescription, index).encode(), token, shift - timedelta(days))
            yield record._replace(topic=topic, partition=place)


def fill(bootstrap_servers: str, records: Iterable[Record]) -> int:
    """Write records, each to the partition it names; return how many, all of them acknowledged."""
    failed: list[str] = []
    producer = Producer(
        {
            "bootstrap.servers": bootstrap_servers,
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": 20,
            "delivery.report.only.error": True,
        },
        on_delivery=lambda error, _: failed.append(error.name()),
    )
    written = 0
    for record in records:
        _produce(producer, record)
        written += 1
    left = producer.flush(_FLUSH_S)
    if failed or left:
        msg = f"{len(failed)} records refused ({set(failed)}), {left} not acknowledged"
        raise RuntimeError(msg)
    return written


def _produce(producer: Producer, record: Record) -> None:
    while True:
        try:
            producer.produce(
                record.topic,
                record.value,
                record.key,
                record.partition,
                timestamp=record.timestamp_ms,
                headers=cast("list[tuple[str, str | bytes | None]]", record.headers),
            )
        except BufferError:
            producer.poll(_FULL_S)
        else:
            producer.poll(0)
            return


def _token(prescription: int) -> str:
    return f"{prescription:010d}"


def _event_id(prescription: int, index: int) -> str:
    return f"evt_{prescription:020d}{index:06d}"
