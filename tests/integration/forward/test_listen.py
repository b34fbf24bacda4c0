"""`drx-consumer forward listen` on a real broker, without PostgreSQL: one signed request for each event from now on."""

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
from aiohttp import web
from standardwebhooks import Webhook  # noqa: TID251 - a receiver's

from bridge.dev.files import DataDirectory
from bridge.dev.services import shared_settings
from bridge.kafka.record import Record
from tests.cluster import Cluster, Topics
from tests.endpoint import an_endpoint
from tests.kafka import HANG_S, ready_producer
from tests.topic_filler import Lives

pytestmark = pytest.mark.kafka


async def test_an_event_from_now_on_is_signed_and_sent_once_and_its_end_is_a_line(
    cluster: Cluster, topics: Topics, tmp_path: Path
) -> None:
    topic = await asyncio.to_thread(topics.fresh, partitions=1)
    directory = DataDirectory(tmp_path)
    secret, taken = directory.secrets / "forward" / "current", list[str]()

    async def take(request: web.BaseRequest) -> web.StreamResponse:
        heads = {name.lower(): text for name, text in request.headers.items()}
        Webhook(secret.read_text().strip()).verify(await request.text(), heads)
        taken.append(request.headers["webhook-id"])
        return web.Response(status=500 if len(taken) == 1 else 204)

    before, first, second, *_ = Lives(1).records(topic, partitions=1)
    strange = Record(topic, 0, b"rx_1", b"no avro", [("ce_type", b"prescription.sent"), ("ce_id", b"evt_\x1b1")], 1)
    a_ping = Record(topic, 0, b"acct_1", first.value, [("ce_type", b"system.ping"), ("ce_id", b"evt_ping")], 1)
    async with ready_producer(cluster.bootstrap_servers, topic, partitions=1) as producer, an_endpoint(take) as url:
        await producer.write(topic, 0, [before])
        listening = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "consumers", "forward", "listen"),
            env=os.environ
            | {
                "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
                "CONSUMER_FORWARD__URL": f"{url}/drx?token=x",
                "CONSUMER_FORWARD__TOPICS": topic,
                "CONSUMER_FORWARD__TYPES": "prescription.*",
                "PYTHONUNBUFFERED": "1",
            }
            | shared_settings(directory),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert listening.stdout is not None
        assert listening.stderr is not None
        try:
            async with asyncio.timeout(HANG_S):
                assert f"once to {url}/drx, ".encode() in await listening.stderr.readline()
                await producer.write(topic, 0, [first, a_ping, strange, second])
                lines = [(await listening.stdout.readline()).decode().rstrip() for _ in range(3)]
        finally:
            listening.send_signal(signal.SIGINT)
            code = await listening.wait()

    ids = [dict(each.headers)["ce_id"].decode() for each in (first, second)]
    assert taken == ids
    assert [line.split(maxsplit=2)[1:] for line in lines] == [
        [ids[0], "failed: http_500"],
        ["evt_\\x1b1", "failed: bad_magic"],
        [ids[1], "sent"],
    ]
    assert code == 130
