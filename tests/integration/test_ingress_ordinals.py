import asyncio
import signal
from pathlib import Path

import aiohttp

from bridge.dev.ports import free_port
from tests.builders import a_body
from tests.integration.ingress_process import IngressProcess, deliver
from tests.spooling import open_spool, ordinals


async def test_they_go_on_above_those_in_the_spool_whatever_the_clock_says(tmp_path: Path) -> None:
    """The earlier process had a clock that ran far ahead, and its spool is not drained."""
    earlier = 4 * 10**15
    spool = tmp_path / "spool"
    async with open_spool(spool) as kept:
        await kept.put(earlier)
    with IngressProcess(tmp_path, f"127.0.0.1:{free_port()}") as ingress:
        await asyncio.to_thread(ingress.ready)
        async with aiohttp.ClientSession() as session:
            answers = [await deliver(session, ingress, a_body(id=each), webhook_id=each) for each in ("evt_1", "evt_2")]
        assert await ingress.end(signal.SIGTERM) == 0

    assert [answer.status for answer in answers] == [202, 202]
    async with open_spool(spool) as kept:
        assert ordinals(kept.found) == [earlier, earlier + 1, earlier + 2]
