"""Context managers that inject faults which fire alerts, and end them."""

import asyncio
import random
import secrets
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson
from confluent_kafka import OFFSET_END, Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from bridge.dev.files import write_text
from bridge.dev.traffic import scenario
from tests.builders import KEY
from tests.faults.alerts.site import EVENTS, Site, an_event
from tests.integration.consumer_process import drx_consumer
from tests.integration.service_process import until
from tests.kafka import limit_messages

# Brokers' default for the largest batch.
BATCH_MAX_BYTES = 1_048_588
SOME, MANY = 5, 20
# The plot of an order that is cancelled in time.
CANCELLED = 6
ANSWER_S = 30.0
# More than the allowed loop delay of one second.
STILL_S = 2.5
INTRUDERS_KEY = b"whoever forges knows another key"


Fault = Callable[[Site], AbstractContextManager[None]]


def held(do: Callable[[Site], object], undo: Callable[[Site], object]) -> Fault:
    @contextmanager
    def fault(site: Site) -> Iterator[None]:
        do(site)
        try:
            yield
        finally:
            undo(site)

    return fault


kafka_frozen = held(lambda site: site.cluster.pause_broker(1), lambda site: site.cluster.resume_broker(1))
ingress_down = held(lambda site: site.ingress.kill(), lambda site: site.ingress.start().ready())
database_killed = held(lambda site: site.postgres.kill(), lambda site: site.postgres.start())
# Heartbeats continue, so there are events to apply.
database_frozen = held(lambda site: site.postgres.pause(), lambda site: site.postgres.resume())
consumer_frozen = held(lambda site: site.desk.freeze(), lambda site: site.desk.thaw())
bad_secret = held(
    lambda site: write_text(site.ingress.secrets_dir / "next", "not a secret\n"),
    lambda site: (site.ingress.secrets_dir / "next").unlink(),
)


def ending_secret(hours: int) -> Fault:
    """Let a secret expire in `hours`; in the scaled rules three hours are a week."""
    return held(
        lambda site: site.keep_secret(until=datetime.now(UTC) + timedelta(hours=hours)), lambda site: site.keep_secret()
    )


def delivered(count: int, status: int, *, age_s: int = 0, key: bytes = KEY, **changes: Any) -> Fault:
    @contextmanager
    def fault(site: Site) -> Iterator[None]:
        for _ in range(count):
            assert site.deliver(an_event(**changes), age_s=age_s, key=key) == status
        yield

    return fault


forged = delivered(MANY, 401, key=INTRUDERS_KEY)
late_clock = delivered(SOME, 401, age_s=3_600)
# Within the tolerance.
slow_clock = delivered(2 * MANY, 200, age_s=100)
unheard_of = delivered(2 * SOME, 202, type="prescription unheard of")


@contextmanager
def new_type(site: Site) -> Iterator[None]:
    letters = "".join(chr(ord("a") + int(each)) for each in str(uuid4().int))
    assert site.deliver(an_event(type=f"desk.{letters[:16]}")) == 200
    yield


@contextmanager
def two_bodies(site: Site) -> Iterator[None]:
    word = uuid4().hex
    first, other = (an_event(id=f"evt_{word}", data_prescription_id=f"rx_{word}", account_id=each) for each in "ab")
    assert site.deliver(first) == 200
    assert site.deliver(other) == 202
    yield


@contextmanager
def parked(site: Site) -> Iterator[str]:
    """A foreign producer writes an invalid record under the given key; an operator skips it."""
    key, readers = f"rx_{uuid4().hex}", {"read_model": site.reader, "desk": site.desk}
    producer = Producer({"bootstrap.servers": site.cluster.bootstrap_servers})
    producer.produce(EVENTS, key=key, value=b"no record")
    assert producer.flush(ANSWER_S) == 0
    until(lambda: all(each.metric("drxbridge_parked_keys") for each in readers.values()), what="parked keys")
    yield key
    for name, each in readers.items():
        command = ("parked", "drop-key", name, key, "--topic", EVENTS, "--reason", "no record of ours")
        code, _, err = asyncio.run(drx_consumer(each.env, *command))
        assert code == 0, err


@contextmanager
def poison(site: Site) -> Iterator[None]:
    with parked(site):
        yield


@contextmanager
def dispensed_after_cancel(site: Site) -> Iterator[None]:
    rng = random.Random(uuid4().hex)  # noqa: S311 - no keys
    events = [orjson.loads(body) for body in scenario(rng, CANCELLED)]
    (fill,) = (each for each in map(orjson.loads, scenario(rng)) if each["type"] == "fill.status_changed")
    fill["data"]["prescription_id"] = events[0]["data"]["prescription_id"]
    for event in [*events, fill | {"timestamp": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"}]:
        assert site.deliver(orjson.dumps(event)) == 200
    yield


@contextmanager
def kafka_killed(site: Site) -> Iterator[None]:
    site.cluster.kill_broker(1)
    try:
        _spool(site, SOME)
        yield
    finally:
        site.cluster.start_broker(1)


@contextmanager
def refused_by_size(site: Site) -> Iterator[None]:
    limit_messages(site.cluster.bootstrap_servers, EVENTS, 2_000)
    try:
        _spool(site, 1, size=10_000)
        yield
    finally:
        limit_messages(site.cluster.bootstrap_servers, EVENTS, BATCH_MAX_BYTES)


@contextmanager
def spool_filling(site: Site) -> Iterator[None]:
    with kafka_frozen(site):
        _until_noticed(site)
        _spool(site, MANY, size=50_000)
        yield


@contextmanager
def spool_full(site: Site) -> Iterator[None]:
    with kafka_frozen(site):
        _until_noticed(site)
        while site.deliver(an_event(data_x_remark=secrets.token_hex(100_000))) == 202:
            pass
        for _ in range(MANY):
            site.deliver(an_event(data_x_remark=secrets.token_hex(100_000)))
        yield


@contextmanager
def bit_flipped(site: Site) -> Iterator[None]:
    with kafka_frozen(site):
        _spool(site, SOME)
        site.ingress.kill()
        segment = max(
            Path(site.ingress.env["BRIDGE_SPOOL__DIR"]).glob("*.segment"), key=lambda path: path.stat().st_size
        )
        raw = bytearray(segment.read_bytes())
        raw[300] ^= 1  # within the first record, whose head is shorter and whose whole is longer
        segment.write_bytes(raw)
        site.ingress.start().live()
    yield


@contextmanager
def ingress_late(site: Site) -> Iterator[None]:
    site.ingress.send_signal(signal.SIGSTOP)
    time.sleep(STILL_S)
    site.ingress.send_signal(signal.SIGCONT)
    yield


@contextmanager
def ingress_alone(site: Site) -> Iterator[None]:
    with kafka_frozen(site):
        site.ingress.kill()
        site.ingress.start().live()
        yield


@contextmanager
def records_deleted(site: Site) -> Iterator[None]:
    """Kafka deletes records that a frozen consumer has not read; an operator moves it to the first remaining one."""
    key, read = f"rx_{uuid4().hex}", partial(site.reader.metric, "drxbridge_consumer_records_total", outcome="applied")
    before = read(topic=EVENTS)
    with consumer_frozen(site):
        for _ in range(SOME):
            assert site.deliver(an_event(data_prescription_id=key)) == 200
        until(lambda: read(topic=EVENTS) >= before + SOME, what="events in the read model, which is not frozen")
        _delete_records(site)
    yield
    site.desk.send_signal(signal.SIGTERM)
    assert site.desk.ended() == 0
    command = ("init", "desk", "--from", "earliest", "--force", "--reason", "records deleted")
    code, _, err = asyncio.run(drx_consumer(site.desk.env, *command))
    assert code == 0, err
    site.desk.start().ready()


def _delete_records(site: Site) -> None:
    admin = AdminClient({"bootstrap.servers": site.cluster.bootstrap_servers})
    partitions = admin.list_topics(EVENTS, timeout=ANSWER_S).topics[EVENTS].partitions
    for deleted in admin.delete_records([TopicPartition(EVENTS, number, OFFSET_END) for number in partitions]).values():
        deleted.result(ANSWER_S)


def _spool(site: Site, count: int, *, size: int = 1) -> None:
    for _ in range(count):
        assert site.deliver(an_event(data_x_remark=secrets.token_hex(size // 2))) == 202


def _until_noticed(site: Site) -> None:
    """Wait until the ingress no longer tries Kafka first, which would delay senders."""
    state = partial(site.ingress.metric, "drxbridge_producer_state", state="ready")
    until(lambda: state() == 0, what="a producer that is not ready")
