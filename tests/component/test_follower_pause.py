"""A follower that has paused asks now and then how fast the logs grow, whatever answers."""

from __future__ import annotations

import asyncio
import contextlib
import struct

from bridge.ingress.deduplicator import KnownIds
from bridge.kafka.connection import Connection
from bridge.kafka.follower import Follower, FollowPatience

HANG_S = 30.0
# Length, key, version and correlation id of a request; the last is repeated by the answer.
_HEAD = struct.Struct(">IhhI")
# An array that is null, which the client takes for a list.
_GARBAGE = b"\xff" * 96


async def test_what_is_no_answer_of_a_broker_is_waited_for() -> None:
    answered = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                size, _key, _version, correlation = _HEAD.unpack(await reader.readexactly(_HEAD.size))
                await reader.readexactly(size + 4 - _HEAD.size)
                writer.write(struct.pack(">II", 4 + len(_GARBAGE), correlation) + _GARBAGE)
                await writer.drain()
                answered += 1
        writer.transport.abort()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        follower = Follower(
            connection=Connection(f"127.0.0.1:{server.sockets[0].getsockname()[1]}"),
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
            while answered < 4 and not running.done():  # noqa: ASYNC110 - a client sends no event
                await asyncio.sleep(0.02)
        stop.set()
        await running

    assert answered >= 4
