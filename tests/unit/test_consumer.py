"""A consumer as a team declares it, and as a process can carry it."""

from __future__ import annotations

import pytest

from bridge.consumer import Batches, Consumer, Lanes


def count(consumer: Consumer) -> int:
    assert isinstance(consumer.mode, Lanes)
    return consumer.mode.count


@pytest.mark.parametrize(("connections", "lanes"), [(100, 8), (9, 8), (8, 7), (3, 2), (2, 1)])
def test_transactional_lanes_leave_one_connection_free(connections: int, lanes: int) -> None:
    consumer = Consumer("tests", ["topic"], mode=Lanes(8, transactional=True))

    assert count(consumer.within(connections)) == lanes


def test_a_job_has_a_connection_of_its_own() -> None:
    consumer = Consumer("tests", ["topic"], mode=Lanes(8, transactional=True))

    @consumer.job(every_s=60)
    async def tidy(connection: object) -> None:
        del connection

    assert [count(consumer.within(connections)) for connections in (10, 8, 2)] == [8, 6, 1]


@pytest.mark.parametrize("mode", [Lanes(8), Batches()])
def test_other_modes_keep_no_connection_for_long(mode: Lanes | Batches) -> None:
    consumer = Consumer("tests", ["topic"], mode=mode)

    assert consumer.within(2) is consumer
