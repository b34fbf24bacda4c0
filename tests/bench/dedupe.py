"""What remembering ids costs a delivery, with an index that is full.

Each is measured in a process of its own (`python -m tests.bench.dedupe IDS`), so that memory is its own.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from bridge.event import Identity
from bridge.known.known_ids import KnownIds

# Made outside of the clock, and few, so that they hardly count as memory.
SLICE = 10_000
LOOKUPS = 10 * SLICE
SIZES = tuple(10**digits for digits in range(3, 8))
GOAL_US = 8.0


def run(progress: Console, *, quick: bool = False) -> dict[str, Any]:
    """Measure everything, one process after the other."""
    figures = {}
    for name in map(str, SIZES[: 3 if quick else None]):
        progress.print(f"dedupe: {name}")
        command = [sys.executable, "-m", "tests.bench.dedupe", name]
        figures[name] = orjson.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603 - ourselves
    return figures


def table(figures: dict[str, Any]) -> Table:
    """What a delivery pays."""
    names = {
        "full_us": f"µs per new delivery (goal <= {GOAL_US:g})",
        "repeat_us": "µs per repeat",
        "rss_mib": "RSS MiB",
    }
    shown = Table("ids", *names.values(), title="deduplication with a full index")
    for ids, each in figures.items():
        shown.add_row(f"{int(ids):,}", *(f"{each[key]:.2f}" for key in names))
    return shown


def _with_ids(count: int) -> dict[str, float]:
    """Fill an index with anything, which is quicker than with deliveries, and see what these cost then."""
    before = _rss_mib()
    dedupe = KnownIds(windows_s={"drx": 86_400}, capacity=count)
    rng, add = random.Random(1), dedupe._table.add  # noqa: S311 - no key
    now = int(time.time())
    for _ in range(count):
        add(rng.getrandbits(64) - (1 << 63), rng.getrandbits(64), 0, expires=now + 86_400, now=now)
    return {"rss_mib": _rss_mib() - before, **_when_full(dedupe, count)}


def _when_full(dedupe: KnownIds, count: int) -> dict[str, float]:
    full = [_us(partial(_deliver, dedupe), identities) for identities in _identities(count, count + LOOKUPS)]
    assert len(dedupe) == count
    newest = range(count + LOOKUPS - min(count, LOOKUPS), count + LOOKUPS)
    repeats = [_us(lambda each: dedupe.begin([each]), each) for each in _identities(newest.start, newest.stop)]
    return {"full_us": sum(full) / len(full), "repeat_us": sum(repeats) / len(repeats)}


def _deliver(dedupe: KnownIds, identity: Identity) -> None:
    dedupe.begin([identity])
    dedupe.settled(identity, "committed")


def _identities(first: int, end: int) -> Iterator[list[tuple[Identity]]]:
    """Identities as an ingress makes them, with bodies spread over 64 bits, each wrapped as the arguments of a call."""
    for start in range(first, end, SLICE):
        yield [
            (Identity("drx", f"evt_{number:026d}", f"{number * 0x9E3779B97F4A7C15 % 2**64:016x}{0:048x}"),)
            for number in range(start, min(start + SLICE, end))
        ]


def _us(call: Callable[..., object], arguments: list[tuple[Any, ...]]) -> float:
    began = time.process_time()
    for each in arguments:
        call(*each)
    return (time.process_time() - began) / len(arguments) * 1e6


def _rss_mib() -> float:
    return float(psutil.Process().memory_info().rss) / 2**20


if __name__ == "__main__":
    (wanted,) = sys.argv[1:]
    sys.stdout.buffer.write(orjson.dumps(_with_ids(int(wanted))))
