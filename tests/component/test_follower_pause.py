"""A follower that has paused asks now and then how fast the logs grow, whatever answers."""

from __future__ import annotations

import asyncio

from bridge.kafka.connection import Connection
from bridge.kafka.follower import Follower, FollowPatience
from bridge.known.known_ids import KnownIds
from tests.garbage import garbage

HANG_S = 30.0


async def test_what_is_no_answer_of_a_broker_is_waited_for() -> None:
    async with garbage() as port:
        follower = Follower(
            connection=Connection(port.address),
            topics=["drx.prescriptions.v1"],
            known_ids=KnownIds(windows_s={}, capacity=1),
            window_s=60,
            records_max=1,
            patience=FollowPatience(rate_window_s=0.0),
        )
        # Its tail was read, and more came than it follows.
        follower._topics["drx.prescriptions.v1"].read = True
        follower._following = False
        stop = asyncio.Event()
        running = asyncio.create_task(follower.run(stop))
        async with asyncio.timeout(HANG_S):
            while port.answered < 4 and not running.done():  # noqa: ASYNC110 - a client sends no event
                await asyncio.sleep(0.02)
        stop.set()
        await running

    assert port.answered >= 4
