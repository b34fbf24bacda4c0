"""Lifecycle, health and logging with controlled parts."""

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from functools import partial
from typing import Any

import aiohttp
import orjson
import pytest
from prometheus_client import CollectorRegistry

from bridge.dev.ports import free_port
from bridge.runtime.health import Check, ManagementPort
from bridge.runtime.lifecycle import EndOf, background, run_workers, unless
from bridge.runtime.logging import LEVELS, configure_logging, log, output
from bridge.runtime.metrics import IngressMetrics

Ask = Callable[..., Awaitable[tuple[int, str, str]]]
ID_KEY = bytes(32)


class Part:
    def __init__(self, *, ends: bool = False, fails: Exception | None = None, ignores_stop: bool = False) -> None:
        self.ends, self.fails = ends, fails
        self.ignores_stop, self.drained = ignores_stop, False
        self.cancelled = False

    async def run(self, stop: asyncio.Event) -> None:
        if self.fails:
            raise self.fails
        if self.ends:
            return
        try:
            await (asyncio.Event().wait() if self.ignores_stop else stop.wait())
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        self.drained = True


async def test_a_failure_comes_out_after_the_others_have_drained() -> None:
    other = Part()

    with pytest.raises(ExceptionGroup) as caught:
        await run_workers([Part(fails=OSError()), other], stop=asyncio.Event(), drain_timeout_s=30)

    assert [type(failure) for failure in caught.value.exceptions] == [OSError]
    assert other.drained


async def test_a_worker_that_does_not_stop_is_cancelled() -> None:
    stuck = Part(ignores_stop=True)

    await run_workers([Part(ends=True), stuck], stop=asyncio.Event(), drain_timeout_s=0.01)

    assert stuck.cancelled


async def test_a_background_worker_outlives_the_others_and_is_drained() -> None:
    part = Part()

    async with background(part, drain_timeout_s=30):
        await run_workers([Part(ends=True)], stop=asyncio.Event(), drain_timeout_s=30)
        assert not part.drained

    assert part.drained


async def test_a_background_worker_that_fails_ends_the_process() -> None:
    async with background(Part(fails=OSError()), drain_timeout_s=30) as task:
        with pytest.raises(ExceptionGroup):
            await run_workers([EndOf(task), Part()], stop=asyncio.Event(), drain_timeout_s=30)


async def test_what_is_opened_is_given_unless_the_stop_comes_first() -> None:
    async def opened_after(part: Part) -> str:
        await part.run(asyncio.Event())
        return "opened"

    part, stop = Part(), asyncio.Event()
    assert await unless(stop, opened_after(Part(ends=True))) == "opened"

    opening = asyncio.create_task(unless(stop, opened_after(part)))
    await asyncio.sleep(0.01)
    stop.set()

    assert await opening is None
    assert part.cancelled


@asynccontextmanager
async def managed(checks: Mapping[str, Check], live: Check) -> AsyncIterator[Ask]:
    port, registry = free_port(), CollectorRegistry()
    IngressMetrics(registry)
    management = ManagementPort(checks=checks, registry=registry, host="127.0.0.1", port=port, live=live)
    stop = asyncio.Event()
    task = asyncio.create_task(management.run(stop))
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:

        async def ask(path: str, **headers: str) -> tuple[int, str, str]:
            async with session.get(path, headers=headers) as answer:
                return answer.status, answer.headers["Content-Type"], await answer.text()

        status = 0
        while not status:
            with contextlib.suppress(aiohttp.ClientConnectorError):
                status = (await ask("/readyz"))[0]
        yield ask
    stop.set()
    await task


async def test_ready_is_what_every_check_says_and_live_needs_none() -> None:
    said = {"kafka": "ok", "draining": "ok"}
    async with managed({name: partial(said.__getitem__, name) for name in said}, live=lambda: "ok") as ask:
        assert (await ask("/readyz"))[0] == 200

        said["kafka"] = "connecting"

        assert (await ask("/livez"))[0] == 200
        status, _, text = await ask("/readyz")
        assert status == 503
        assert json.loads(text) == {"status": "unavailable", "checks": {"kafka": "connecting", "draining": "ok"}}

        said["kafka"] = "degraded stalled"

        status, _, text = await ask("/readyz")
        assert (status, json.loads(text)) == (
            200,
            {"status": "degraded", "checks": {"kafka": "degraded", "draining": "ok"}, "reasons": {"kafka": "stalled"}},
        )
        assert (await ask("/metrics"))[1].startswith("text/plain")
        assert (await ask("/metrics", Accept="application/openmetrics-text"))[1].startswith("application/openmetrics")
        assert (await ask("/other"))[0] == 404


@pytest.mark.parametrize("version", ["é", "2.é", "x", "2.CANARY"])
async def test_metrics_come_whatever_version_of_them_is_asked_for(version: str) -> None:
    async with managed({}, live=lambda: "ok") as ask:
        status, content_type, _ = await ask("/metrics", Accept=f"application/openmetrics-text; version={version}")

    assert (status, content_type) == (200, "application/openmetrics-text; version=1.0.0; charset=utf-8")


@pytest.fixture
def json_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    configure_logging(level="debug", id_key=ID_KEY)
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.usefixtures("json_logging")
def test_what_a_library_logs_loses_its_values(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    configure_logging(level="debug", id_key=ID_KEY)  # again: the stream that is captured now
    library = logging.getLogger("some.library")
    try:
        raise KeyError("Marisol")  # noqa: TRY301 - stands for a library's own text
    except KeyError:
        library.exception("Unable to parse %s", "Marisol Quintero")
    library.error("Unable to parse Marisol Quintero")

    assert output.flush()
    out, err = capfdbinary.readouterr()

    assert b"Marisol" not in out + err
    first, second = (json.loads(line) for line in out.splitlines())
    assert (first["template"], first["code"]) == ("Unable to parse %s", "KeyError")
    assert second["template"] == ""


@pytest.mark.usefixtures("json_logging")
@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_a_json_line_has_its_fields_level_and_time_from_its_level_on(
    level: Any, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    configure_logging(level=level, id_key=ID_KEY)
    for name in LEVELS:
        getattr(log, name)("worker.test", code=name)
    log.log(logging.CRITICAL, "worker.test", code="critical")
    assert output.flush()
    lines = [orjson.loads(line) for line in capfdbinary.readouterr().out.splitlines()]

    names = [name for name, number in LEVELS.items() if number >= LEVELS[level]]
    assert [line["code"] for line in lines] == [*names, "critical"]
    assert all(line["level"] == line["code"] and line["event"] == "worker.test" for line in lines)
    assert all(datetime.fromisoformat(line["timestamp"]).tzinfo is not None for line in lines)
