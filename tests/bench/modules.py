"""`python -m tests.bench.modules`: the modules of ours that a delivery, or a record in the read model, passes through.

One module counts if a function of it is called between the moment when the bytes of a native DRx delivery are sent and
its answer, or between the writing of a record and its commit. The process has started before, and has a real Kafka and
PostgreSQL. What is called once per process, or by a timer, does not count: a module must be met by each of `EACH`.
Neither do imports, nor functions that Python makes of a class, such as those of a NamedTuple.
"""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial

from rich.console import Console

from bridge.app import open_ingress
from bridge.dev.ports import HOST, free_port, is_free
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from bridge.runtime.lifecycle import Worker, run_workers
from bridge.settings import load_settings
from consumers.app import open_consumer
from consumers.commands.installed import choose
from tests.bench.consuming import Place, filled
from tests.bench.servers import ingress_settings
from tests.bench.traffic import requests
from tests.installed import ROOT
from tests.topic_filler import Lives, fill
from tests.waiting import until

EACH = 50
# Those that connect, and fill caches.
WARM_UP = 10
STOP_S = 30.0


def main() -> None:
    with filled(Lives(0)) as place:
        for name, passing in (("record of read_model", _records), ("delivery", _deliveries)):
            modules = sorted(asyncio.run(passing(place)))
            Console().print(f"{len(modules)} modules for a {name}:", *modules, sep="\n  ")


async def _deliveries(place: Place) -> set[str]:
    port = free_port()
    _configure("BRIDGE", ingress_settings(place.directory, port, place.bootstrap_servers))
    async with open_ingress(load_settings()) as workers, _running(workers):
        await until(lambda: not is_free(port))
        reader, writer = await asyncio.open_connection(HOST, port)
        waiting = requests(500, 100 * EACH)

        async def deliver() -> None:
            answer = b""
            while b'"accepted"' not in answer:  # the first are spooled until the topics are read
                writer.write(next(waiting))
                answer = await reader.readuntil(b"}")

        found = await _met_by_each(deliver)
        writer.close()
    return found


async def _records(place: Place) -> set[str]:
    settings = {"KAFKA__BOOTSTRAP_SERVERS": place.bootstrap_servers, "KAFKA__OFFSET_RESET": "earliest"}
    _configure("CONSUMER", settings | {"POSTGRES__DSN": place.dsn})
    chosen, waiting = choose("read_model"), Lives(2 * EACH).records()
    labels = {"service": "read_model", "topic": PRESCRIPTIONS_TOPIC, "outcome": "applied"}
    applied = partial(chosen.registry.get_sample_value, "drxbridge_consumer_records_total", labels)

    async def apply() -> None:
        before = applied() or 0
        await asyncio.to_thread(fill, place.bootstrap_servers, [next(waiting)])
        await until(lambda: (applied() or 0) > before)

    opening = open_consumer(chosen.settings, chosen.consumer, chosen.registry)
    async with opening as workers, _running(workers[:2]):  # not its timers
        return await _met_by_each(apply)


def _configure(prefix: str, settings: Mapping[str, str]) -> None:
    own = {"MANAGEMENT__HOST": HOST, "MANAGEMENT__PORT": str(free_port()), "LOG__LEVEL": "info", **settings}
    os.environ.update({f"{prefix}_{name}": value for name, value in own.items()})


@asynccontextmanager
async def _running(workers: Sequence[Worker]) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(run_workers(workers, stop=stop, drain_timeout_s=STOP_S))
    yield
    stop.set()
    await task


async def _met_by_each(work: Callable[[], Awaitable[None]]) -> set[str]:
    """Return the modules of which a function is called in every one of `EACH` times that `work` is done."""
    for _ in range(WARM_UP):
        await work()
    met: list[set[str]] = []
    for _ in range(EACH):
        met.append(set())
        sys.setprofile(lambda frame, *_: met[-1].add(frame.f_code.co_filename))
        await work()
        sys.setprofile(None)
    found = {each.removeprefix(f"{ROOT}/") for each in set.intersection(*met)}
    return {each for each in found if each.startswith(("bridge/", "consumers/"))}


if __name__ == "__main__":
    main()
