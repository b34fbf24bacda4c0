from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Producer

from consumers.runtime.park_limit import LAST_RECORDS, PARKED_MAX_PERCENT
from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground, Scene
from tests.integration.service_process import HANG_S, until
from tests.postgres import execute
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

LIVES = Lives(40)
# More than a process may park of the last records.
JUNK = LAST_RECORDS * PARKED_MAX_PERCENT // 100 + 10
_PARKED = r"select count(*) from drx_consumer.parked_event where key like '\\null@%'"
_DROP = r"delete from drx_consumer.{} where key like '\\null@%'"


def play(ground: Ground, case: Mode, seed: int) -> None:
    del seed
    with appending(ground, case, LIVES) as scene:
        member = scene.member().ready()
        scene.write(LIVES.count // 2)
        write_junk(scene)
        with open_transaction(scene):
            scene.write()
            until(lambda: member.metric("drxbridge_consumer_lag_seconds", partition="0") > 1, what="lag behind it")
        scene.wait_settled(scene.written + JUNK + 1)  # of the transaction a record; its marker is the last of the log
        assert scene.ask(_PARKED) == [(JUNK,)]
        assert member.metric("drxbridge_park_breaker_open") == 0
        execute(scene.dsn, *(_DROP.format(table) for table in ("parked_event", "parked_key")))
        scene.subject.check(scene)


def write_junk(scene: Scene) -> None:
    producer = Producer({"bootstrap.servers": scene.ground.bootstrap_servers, "log_level": 0})
    for number in range(JUNK):
        producer.produce(scene.topic, b"\0\xffjunk" * (number + 1), partition=number % scene.partitions)
    assert producer.flush(HANG_S) == 0


@contextmanager
def open_transaction(scene: Scene) -> Iterator[None]:
    address = scene.ground.bootstrap_servers
    producer = Producer({"bootstrap.servers": address, "transactional.id": scene.topic, "log_level": 0})
    producer.init_transactions(HANG_S)
    producer.begin_transaction()
    producer.produce(scene.topic, b"taken back", partition=0)
    producer.flush(HANG_S)
    yield
    producer.abort_transaction(HANG_S)


@pytest.mark.parametrize("case", ["batches", "lanes"])
def test_what_is_no_event_stops_nothing(played: Callable[[], None]) -> None:
    played()
