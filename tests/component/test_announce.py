"""The log lines of a process's state: once when it is ready, and again only on changes."""

import asyncio
from functools import partial

import pytest

from bridge.runtime.announce import PERIOD_S, START_S, Readiness
from tests.logs import capture_logs

Line = tuple[str, dict[str, str]]
READY: Line = ("worker.ready", {})
DEGRADED: Line = ("worker.ready", {"kafka": "degraded"})


@pytest.mark.virtual_time
@pytest.mark.parametrize(
    ("first", "changes", "settle_s", "lines"),
    [
        ("ok", [(60, "ok")], 0, [READY]),
        ("degraded", [], 0, [DEGRADED]),
        ("degraded", [(4, "ok")], 5, [READY]),
        ("degraded", [(6, "degraded")], 5, [DEGRADED]),
        ("connecting", [(START_S / 2, "ok")], 0, [READY]),
        ("unreachable", [(20 * START_S, "ok")], 0, [("worker.not_ready", {"kafka": "unreachable"}), READY]),
        ("ok", [(60, "stalled"), (1, "ok")], 0, [READY, ("worker.not_ready", {"kafka": "stalled"}), READY]),
    ],
)
async def test_a_process_says_once_what_it_has_settled_on_and_again_when_that_changes(
    first: str, changes: list[tuple[float, str]], settle_s: float, lines: list[Line]
) -> None:
    """The check of Kafka says another word after each of the seconds."""
    results = {"kafka": first, "spool": "ok"}
    watch = Readiness({name: partial(results.__getitem__, name) for name in results}, settle_s=settle_s)
    stop = asyncio.Event()
    with capture_logs() as found:
        running = asyncio.create_task(watch.run(stop))
        for after_s, word in changes:
            await asyncio.sleep(after_s)
            results["kafka"] = word
        await asyncio.sleep(2 * PERIOD_S)
        stop.set()
        await running

    assert [(line["event"], line.get("checks", {})) for line in found] == lines
