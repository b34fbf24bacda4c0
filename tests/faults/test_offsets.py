"""Offsets that Kafka has lost, and logs that are not the ones the stored offsets are of."""

from __future__ import annotations

import signal

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bridge.dev.admin import create_topics
from tests.faults.scene import PARTITIONS, Ground, Scene, appending
from tests.integration.consumer_process import ConsumerProcess
from tests.integration.ingress_process import HANG_S, until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(40)
FIRST = 100
# A group that has no offset must not fall back on one end of the log or the other.
PRODUCTION = {"KAFKA__OFFSET_RESET": "none"}


def test_a_lost_group_offset_is_taken_from_the_database(ground: Ground) -> None:
    with appending(ground, "batches", LIVES) as scene:
        _apply_some_and_end(scene)
        admin = _admin(ground)
        (deleted,) = admin.delete_consumer_groups([scene.group]).values()
        deleted.result(HANG_S)
        scene.write()
        member = scene.member(**PRODUCTION)
        scene.wait_settled()
        again = member.metric("drxbridge_consumer_records_total", outcome="duplicate")
        scene.release()
        scene.check_effects()

    assert again == 0


def test_a_recreated_topic_that_has_outgrown_the_stored_offset_is_refused(ground: Ground) -> None:
    with appending(ground, "batches", LIVES) as scene:
        _apply_some_and_end(scene)
        before = scene.ask("select * from appended")
        _delete_topic(ground, scene.topic)
        create_topics(ground.bootstrap_servers, {scene.topic: PARTITIONS})
        other = Lives(200, seed=2)
        fill(ground.bootstrap_servers, other.records(scene.topic, partitions=PARTITIONS))
        code = scene.member(**PRODUCTION).ended()
        after = scene.ask("select * from appended")

    assert code == 2
    assert after == before


def test_an_offset_that_the_log_no_longer_has_is_refused(ground: Ground) -> None:
    with appending(ground, "batches", LIVES) as scene:
        _apply_some_and_end(scene)
        before = scene.ask("select * from appended")
        scene.write()
        ends = [TopicPartition(scene.topic, part, offset + 1) for part, offset in scene.progress().items()]
        admin = _admin(ground)
        for deleted in admin.delete_records(ends).values():
            deleted.result(HANG_S)
        code = scene.member(**PRODUCTION).ended()
        after = scene.ask("select * from appended")

    assert code == 2
    assert after == before


def _apply_some_and_end(scene: Scene) -> None:
    scene.write(FIRST)
    member: ConsumerProcess = scene.member()
    scene.wait_settled()
    member.send_signal(signal.SIGTERM)
    assert member.ended() == 0


def _admin(ground: Ground) -> AdminClient:
    """Must be held as long as an answer of it is waited for."""
    return AdminClient({"bootstrap.servers": ground.bootstrap_servers})


def _delete_topic(ground: Ground, topic: str) -> None:
    admin = _admin(ground)
    (deleted,) = admin.delete_topics([topic]).values()
    deleted.result(HANG_S)
    until(lambda: topic not in admin.list_topics(timeout=HANG_S).topics, what="a deleted topic")
