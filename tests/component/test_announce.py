"""What a process says of itself: once when it can work, and again only when that changes."""

from __future__ import annotations

import asyncio

import pytest

from bridge.runtime.announce import PERIOD_S, START_S, Readiness
from tests.logs import capture_logs


@pytest.fixture
def results() -> dict[str, str]:
    """Give what the checks say, to be changed."""
    return {"kafka": "ok", "spool": "ok"}


async def lines_of(
    results: dict[str, str], *changes: tuple[float, str], settle_s: float = 0.0
) -> list[tuple[str, dict[str, str]]]:
    """Return the lines when the check of Kafka says another word after each of these seconds."""
    checks = {name: lambda name=name: results[name] for name in results}
    watch = Readiness(checks, settle_s=settle_s)
    stop = asyncio.Event()
    with capture_logs() as found:
        running = asyncio.create_task(watch.run(stop))
        for after_s, word in changes:
            await asyncio.sleep(after_s)
            results["kafka"] = word
        await asyncio.sleep(2 * PERIOD_S)
        stop.set()
        await running
    return [(line["event"], line.get("checks", {})) for line in found]


@pytest.mark.virtual_time
async def test_a_process_is_said_to_be_ready_once(results: dict[str, str]) -> None:
    assert await lines_of(results, (60, "ok")) == [("worker.ready", {})]


@pytest.mark.virtual_time
async def test_a_degraded_process_is_ready_and_says_what_is_not_well(results: dict[str, str]) -> None:
    results["kafka"] = "degraded"

    assert await lines_of(results) == [("worker.ready", {"kafka": "degraded"})]


@pytest.mark.virtual_time
async def test_a_process_that_is_degraded_for_a_moment_is_said_to_be_ready_when_it_is_well(
    results: dict[str, str],
) -> None:
    results["kafka"] = "degraded"

    assert await lines_of(results, (4, "ok"), settle_s=5) == [("worker.ready", {})]


@pytest.mark.virtual_time
async def test_one_that_stays_degraded_is_said_to_be_ready_so(results: dict[str, str]) -> None:
    results["kafka"] = "degraded"

    assert await lines_of(results, (6, "degraded"), settle_s=5) == [("worker.ready", {"kafka": "degraded"})]


@pytest.mark.virtual_time
async def test_a_short_start_says_nothing_until_it_is_over(results: dict[str, str]) -> None:
    results["kafka"] = "connecting"

    assert await lines_of(results, (START_S / 2, "ok")) == [("worker.ready", {})]


@pytest.mark.virtual_time
async def test_a_long_start_names_what_it_waits_for_once(results: dict[str, str]) -> None:
    results["kafka"] = "unreachable"

    assert await lines_of(results, (20 * START_S, "ok")) == [
        ("worker.not_ready", {"kafka": "unreachable"}),
        ("worker.ready", {}),
    ]


@pytest.mark.virtual_time
async def test_what_is_lost_later_is_said_at_once(results: dict[str, str]) -> None:
    assert await lines_of(results, (60, "stalled"), (1, "ok")) == [
        ("worker.ready", {}),
        ("worker.not_ready", {"kafka": "stalled"}),
        ("worker.ready", {}),
    ]
