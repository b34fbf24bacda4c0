"""Lanes against one lane, and one key that hangs among others: how long records wait for a sink of 20 ms."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from rich.console import Console

from bridge.dev.kafka import create_topics
from bridge.kafka.record import Record
from tests.bench.consuming import START_S, Consuming, Place, consumer
from tests.bench.sinks import NAME
from tests.installed import install
from tests.topic_filler import Lives, fill

LANES = 8
# One lane does 50 records/s.
ONE_LANE_RECORDS = 500
EIGHT_LANES_RECORDS = 2_400
TIMEOUT_S = 30.0
# Half of what eight lanes can do, and well below what seven can.
RATE = 200.0
# The hanging key fails this often while the others are watched.
HANG_S = 5.0
WATCHED_S = 20.0
# While the group has just formed, records wait for that.
WARM_UP_S = 3.0
HANGING = 0


class Runs:
    """Makes a topic and a group of their own for each run."""

    def __init__(self, place: Place) -> None:
        """Make the sinks known."""
        self._place = place
        self._found = install(place.directory / "sinks", {NAME: "tests.bench.sinks:slow"})
        self._numbers = itertools.count(1)

    @contextmanager
    def sink(self, *, lanes: int, timeout_s: float, hanging: str = "") -> Iterator[Sink]:
        """Run one consumer of an empty topic."""
        group = f"slow-{next(self._numbers)}"
        topic, times = f"bench.{group}", self._place.directory / f"{group}.times"
        create_topics(self._place.bootstrap_servers, {topic: 12})
        options = {
            "TOPIC": topic,
            "GROUP": group,
            "LANES": str(lanes),
            "TIMEOUT_S": str(timeout_s),
            "HANGING": hanging,
            "TIMES": str(times),
        }
        process = consumer(
            self._place.directory,
            NAME,
            bootstrap_servers=self._place.bootstrap_servers,
            dsn=self._place.dsn,
            group=group,
            settings={**self._found, **{f"CONSUMER_{NAME.upper()}__{name}": value for name, value in options.items()}},
        )
        process.start()
        try:
            process.wait_ready()
            yield Sink(process, self._place.bootstrap_servers, topic, times)
        finally:
            process.child.kill()


@dataclass(frozen=True, slots=True)
class Sink:
    """One run: what goes in, and when it was handled."""

    process: Consuming
    bootstrap_servers: str
    topic: str
    times: Path

    def handled(self) -> dict[str, float]:
        """When each event was handled for the first time."""
        found: dict[str, float] = {}
        for line in self.times.read_text(encoding="ascii").splitlines():
            event_id, at = line.split(" ")
            found.setdefault(event_id, float(at))
        return found

    def wait(self, enough: Callable[[dict[str, float]], bool]) -> dict[str, float]:
        """Return when enough was handled."""
        deadline = time.monotonic() + START_S
        while not enough(found := self.handled()):
            if time.monotonic() > deadline:
                msg = f"only {len(found)} records were handled: {self.process.child.last_line}"
                raise RuntimeError(msg)
            time.sleep(0.2)
        return found

    def rate(self, records: int) -> float:
        """Fill the topic, and return how many records a second are handled from the first to the last."""
        # Distinct keys: as many as it has lives, several times the lanes.
        fill(self.bootstrap_servers, Lives.of_records(records).records(self.topic))
        at = sorted(self.wait(lambda found: len(found) >= records).values())[:records]
        return (records - 1) / (at[-1] - at[0])

    def p99_ms(self, *, without: str) -> float:
        """Write at a steady rate, and return how long records of other keys than that wait until they are handled."""
        written = dict(self._write_steadily(without))
        found = self.wait(lambda handled: written.keys() <= handled.keys())
        # The clock of one machine.
        waits = sorted(found[event_id] - at for event_id, at in written.items())
        return waits[len(waits) * 99 // 100] * 1000

    def _write_steadily(self, without: str) -> Iterator[tuple[str, float]]:
        """Yield id and time of what is written after the warm-up."""
        producer = Producer({"bootstrap.servers": self.bootstrap_servers, "acks": "all", "linger.ms": 0})
        began = time.monotonic()
        for number, record in enumerate(_hanging_among_others(int(RATE * (WARM_UP_S + WATCHED_S)))):
            time.sleep(max(0.0, began + number / RATE - time.monotonic()))
            at = time.time()
            producer.produce(self.topic, record.value, record.key, record.partition, headers=list(record.headers))
            producer.poll(0)
            if number >= RATE * WARM_UP_S and record.key.decode() != without:
                yield dict(record.headers)["ce_id"].decode(), at
        producer.flush()


def _hanging_among_others(count: int) -> Iterator[Record]:
    """Records of many keys; the one that may hang comes early."""
    lives = Lives.of_records(count)
    hanging = lives.prescription_id(HANGING).encode()
    records = list(lives.records())
    records.sort(key=lambda each: each.key != hanging)
    return iter(records[:count])


def run(console: Console, place: Place) -> dict[str, Any]:
    """Measure both; a minute and a half."""
    runs, hanging = Runs(place), Lives(1).prescription_id(HANGING)
    with runs.sink(lanes=1, timeout_s=TIMEOUT_S) as sink:
        one = sink.rate(ONE_LANE_RECORDS)
    with runs.sink(lanes=LANES, timeout_s=TIMEOUT_S) as sink:
        eight = sink.rate(EIGHT_LANES_RECORDS)
    console.print(f"a sink of 20 ms: one lane {one:.0f}/s, {LANES} lanes {eight:.0f}/s")
    with runs.sink(lanes=LANES, timeout_s=HANG_S) as sink:
        alone = sink.p99_ms(without=hanging)
    with runs.sink(lanes=LANES, timeout_s=HANG_S, hanging=hanging) as sink:
        beside = sink.p99_ms(without=hanging)
    console.print(f"p99 of other keys: {alone:.0f} ms, beside a hanging one {beside:.0f} ms")
    return {
        "one_lane_per_s": round(one, 1),
        "eight_lanes_per_s": round(eight, 1),
        "lanes_ratio": round(eight / one, 2),
        "p99_ms": round(alone, 1),
        "p99_beside_hanging_ms": round(beside, 1),
        "p99_ratio": round(beside / alone, 2),
    }
