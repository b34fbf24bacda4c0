import signal
from collections.abc import Callable

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from bridge.dev.kafka import create_topics
from tests.faults.appending import appending
from tests.faults.scene import Ground, Scene
from tests.integration.service_process import HANG_S, until
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(40)
FIRST = 100
# A group that has no offset must not fall back on one end of the log or the other.
PRODUCTION = "none"


def play(ground: Ground, case: Callable[[Scene, AdminClient], None], seed: int) -> None:
    del seed
    admin = AdminClient({"bootstrap.servers": ground.bootstrap_servers})
    with appending(ground, "batches", LIVES) as scene:
        scene.write(FIRST)
        member = scene.member()
        scene.wait_settled()
        member.send_signal(signal.SIGTERM)
        assert member.ended() == 0
        case(scene, admin)


def group_offset_lost(scene: Scene, admin: AdminClient) -> None:
    """Nothing is done twice, and nothing is left out."""
    (deleted,) = admin.delete_consumer_groups([scene.group]).values()
    deleted.result(HANG_S)
    scene.write()
    member = scene.member(KAFKA__OFFSET_RESET=PRODUCTION)
    scene.wait_settled()
    read_again = member.metric("drxbridge_consumer_records_total", outcome="duplicate")
    scene.finish()
    assert read_again == 0


def topic_recreated_and_grown(scene: Scene, admin: AdminClient) -> None:
    """The stored offset exists there, but the record before it is another one."""
    (deleted,) = admin.delete_topics([scene.topic]).values()
    deleted.result(HANG_S)
    until(lambda: scene.topic not in admin.list_topics(timeout=HANG_S).topics, what="a deleted topic")
    create_topics(scene.ground.bootstrap_servers, {scene.topic: scene.partitions})
    fill(scene.ground.bootstrap_servers, Lives(200, seed=2).records(scene.topic, partitions=scene.partitions))
    _assert_stopped(scene, "topic_recreated")


def stored_offset_expired(scene: Scene, admin: AdminClient) -> None:
    """Records were deleted that were never applied."""
    scene.write()
    places = [TopicPartition(scene.topic, part, offset + 1) for part, offset in scene.progress().items()]
    for deleted in admin.delete_records(places).values():
        deleted.result(HANG_S)
    _assert_stopped(scene, "offset_expired")


def _assert_stopped(scene: Scene, code: str) -> None:
    applied = scene.ask("select * from appended")
    member = scene.member(KAFKA__OFFSET_RESET=PRODUCTION)
    until(lambda: member.checks().get("group") == code, what="a partition that is stopped")
    stopped = "drxbridge_consumer_stopped_partitions"
    until(lambda: member.metric(stopped, code=code) == scene.partitions, what="all of them")
    assert scene.ask("select * from appended") == applied


@pytest.mark.parametrize("case", [group_offset_lost, topic_recreated_and_grown, stored_offset_expired])
def test_no_record_is_skipped_or_repeated_unsaid(played: Callable[[], None]) -> None:
    played()
