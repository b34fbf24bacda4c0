import signal
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from tests.faults.appending import Mode, appending
from tests.faults.scene import Ground
from tests.integration.service_process import HANG_S
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka

LIVES = Lives(40)
FIRST = 100
# A group that has no offset must not fall back on one end of the log or the other.
PRODUCTION = "none"


def play(ground: Ground, case: Mode, seed: int) -> None:
    del seed
    admin = AdminClient({"bootstrap.servers": ground.bootstrap_servers})
    with appending(ground, case, LIVES) as scene:
        scene.write(FIRST)
        member = scene.member()
        scene.wait_settled()
        member.send_signal(signal.SIGTERM)
        assert member.ended() == 0
        (deleted,) = admin.delete_consumer_groups([scene.group]).values()
        deleted.result(HANG_S)
        scene.write()
        member = scene.member(KAFKA__OFFSET_RESET=PRODUCTION)
        scene.wait_settled()
        assert member.metric("drxbridge_consumer_records_total", outcome="duplicate") == 0
        scene.finish()


@pytest.mark.parametrize("case", ["batches"])
def test_no_record_is_skipped_or_repeated_when_the_offsets_of_a_group_are_lost(played: Callable[[], None]) -> None:
    played()
