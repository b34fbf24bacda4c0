"""Whatever fails, and however often: effects exactly once, and per key in the order of the log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from itertools import count

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.errors import PermanentError, TransientError
from bridge.event import Event
from consumers.api import Batches, Consumer, Lanes
from consumers.runtime.park_limit import ParkCounter
from tests.settling import PLACE, Effects, a_database, a_record, at_work

MODES = pytest.mark.parametrize(
    "mode", [Batches(8, 0.002), Lanes(3, transactional=True), Lanes(3)], ids=["batches", "inside", "outside"]
)
_FAILURES = {
    "transient": TransientError("conflict"),
    "systemic": TransientError("down", systemic=True),
    "permanent": PermanentError("refused"),
    "bug": ValueError(),
}
_numbers = count()

# What a record's first attempts end in; after that it succeeds, so that every key comes through in the end.
plans = st.lists(
    st.tuples(st.sampled_from("abcd"), st.lists(st.sampled_from(sorted(_FAILURES)), max_size=3)),
    min_size=1,
    max_size=15,
)


@MODES
@given(plan=plans)
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_order_and_once_through_every_failure(
    postgres: str, mode: Lanes | Batches, plan: list[tuple[str, list[str]]]
) -> None:
    asyncio.run(_check(postgres, mode, plan))


async def _check(dsn: str, mode: Lanes | Batches, plan: list[tuple[str, list[str]]]) -> None:
    number = next(_numbers)
    effects = Effects()
    ids = [f"evt_{number}_{offset}" for offset in range(len(plan))]
    failures = dict(zip(ids, (words for _, words in plan), strict=True))

    def fail(event: Event, tried: int) -> Exception | None:
        words = failures[event.id]
        return _FAILURES[words[tried]] if tried < len(words) else None

    effects.fail = fail
    consumer = Consumer(f"group_{number}", [PLACE.topic], mode=mode)
    consumer.handler(effects.batch if isinstance(mode, Batches) else effects.one)
    log = [a_record(offset, key, id=ids[offset]) for offset, (key, _) in enumerate(plan)]
    counter = ParkCounter(last=1000, percent=100)

    async with a_database(dsn) as database, at_work(consumer, database, park_counter=counter) as bench:
        await bench.feed(log)
        await bench.settled(len(log))
        while await bench.rows("select 1 from drx_consumer.parked_key where grp = $1", consumer.group):
            await bench.rows("update drx_consumer.parked_key set release_requested_at = clock_timestamp() returning 1")
            await asyncio.sleep(0.02)

        by_key: defaultdict[str, list[str]] = defaultdict(list)
        for event_id in effects.kept:
            by_key[plan[int(event_id.rsplit("_", 1)[1])][0]].append(event_id)
        expected: defaultdict[str, list[str]] = defaultdict(list)
        for offset, (key, _) in enumerate(plan):
            expected[key].append(ids[offset])
        assert by_key == expected
        if not isinstance(mode, Lanes) or mode.transactional:
            rows = await bench.rows(
                "select event_id, key from effect where event_id like $1 order by number", f"evt_{number}_%"
            )
            there: defaultdict[str, list[str]] = defaultdict(list)
            for event_id, key in rows:
                there[key].append(event_id)
            assert there == expected
        else:
            assert len(effects.applied) == len(ids)
