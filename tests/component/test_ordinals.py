"""Numbers of records rise with acceptance: from the clock on, and above whatever the spool holds."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from bridge.kafka.partition_writer import NoSpool
from bridge.kafka.publisher import ordinals
from bridge.spool.store import Spool
from tests.spooling import make_spool, open_spool

NOON_S = 1_770_000_000
NOON = NOON_S * 10**6
AGO_S = NOON_S - 86_400


def given(spool: Spool | NoSpool, now_s: int, count: int = 3) -> list[int]:
    return list(islice(ordinals(lambda: spool.last_ordinal, now_ns=lambda: now_s * 10**9), count))


async def test_they_rise_over_a_restart_with_a_clock_set_back_while_anything_is_spooled(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        first = given(kept.spool, NOON_S)
        await kept.put(*first)
    async with open_spool(tmp_path) as kept:
        second = given(kept.spool, AGO_S)
        await kept.put(*second)
    async with open_spool(tmp_path) as kept:
        third = given(kept.spool, AGO_S)

    assert first + second + third == list(range(NOON, NOON + 9))


async def test_they_rise_above_a_spool_that_is_opened_late(tmp_path: Path) -> None:
    async with open_spool(tmp_path) as kept:
        await kept.put(NOON)
    kept = make_spool(tmp_path)
    numbers = ordinals(lambda: kept.spool.last_ordinal, now_ns=lambda: AGO_S * 10**9)
    before = next(numbers)

    await kept.spool.open(kept.found)

    assert before < NOON
    assert next(numbers) == NOON + 1
    await kept.spool.close()
