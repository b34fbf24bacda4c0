"""What remembering ids costs: three stores alone with a million, then the whole deduplication of a delivery.

Each is measured in a process of its own (`python -m tests.bench.dedupe NAME`), so that memory is its own; the last with
each number of ids in `SIZES` (`python -m tests.bench.dedupe IDS`).
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

import orjson
import psutil
from rich.console import Console
from rich.table import Table

from bridge.event import Identity
from bridge.known.id_table import IdTable
from bridge.known.known_ids import KnownIds

IDS = 1_000_000
# Made outside of the clock, and few, so that they hardly count as memory.
SLICE = 10_000
LOOKUPS = 10 * SLICE
SIZES = tuple(10**digits for digits in range(3, 8))
# Constant, since no id expires here.
NOW, EXPIRES = 1_800_000_000, 1_800_086_400
GOALS = {"rss_mib": 64.0, "delivery_us": 8.0}
_TITLES = {"sqlite": "(a) SQLite in memory", "dict": "(b) dict", "table": "(c) arrays"}


class Store(Protocol):
    """Remembers 64 bits of an id with 64 bits of a body's hash and an expiry."""

    def add(self, key: int, body: int) -> None:
        """Remember a new one."""

    def known(self, key: int, body: int) -> bool:
        """Whether it is remembered, with this body."""


class Sqlite:
    """A table that is its own index, and another index to expire by; the module prepares statements once."""

    def __init__(self) -> None:
        """Open one in memory."""
        self._database = sqlite3.connect(":memory:", isolation_level=None)
        self._database.execute("CREATE TABLE ids (key BLOB PRIMARY KEY, body INTEGER, expires INTEGER) WITHOUT ROWID")
        self._database.execute("CREATE INDEX by_expiry ON ids (expires)")

    def add(self, key: int, body: int) -> None:
        """Remember a new one."""
        signed = body - (1 << 63)
        self._database.execute("INSERT INTO ids VALUES (?, ?, ?)", (key.to_bytes(8, signed=True), signed, EXPIRES))

    def known(self, key: int, body: int) -> bool:
        """Whether it is remembered, with this body."""
        row = self._database.execute(
            "SELECT body, expires FROM ids WHERE key = ?", (key.to_bytes(8, signed=True),)
        ).fetchone()
        return row is not None and row == (body - (1 << 63), EXPIRES)


class Dictionary:
    """A dict from a key to body and expiry, joined as bytes; it expires in the order of insertion."""

    def __init__(self) -> None:
        """Start empty."""
        self._ids: dict[int, bytes] = {}

    def add(self, key: int, body: int) -> None:
        """Remember a new one."""
        self._ids[key] = body.to_bytes(8) + EXPIRES.to_bytes(4)

    def known(self, key: int, body: int) -> bool:
        """Whether it is remembered, with this body."""
        found = self._ids.get(key)
        return found is not None and found[:8] == body.to_bytes(8)


class Arrays:
    """Ours."""

    def __init__(self) -> None:
        """Start empty."""
        self._table = IdTable(IDS)

    def add(self, key: int, body: int) -> None:
        """Remember a new one."""
        self._table.add(key, body, 0, expires=EXPIRES, now=NOW)

    def known(self, key: int, body: int) -> bool:
        """Whether it is remembered, with this body."""
        entry = self._table.find(key)
        return bool(entry) and self._table.expiries[entry] > NOW and self._table.bodies[entry] == body


STORES: dict[str, Callable[[], Store]] = {"sqlite": Sqlite, "dict": Dictionary, "table": Arrays}


def run(progress: Console) -> dict[str, Any]:
    """Measure everything, one process after the other."""
    figures = {}
    for name in (*STORES, "deliveries", *map(str, SIZES)):
        progress.print(f"dedupe: {name}")
        command = [sys.executable, "-m", "tests.bench.dedupe", name]
        figures[name] = orjson.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)  # noqa: S603 - ourselves
    return figures


def table(figures: dict[str, Any]) -> Table:
    """The stores side by side, then what a delivery pays."""
    shown = Table(title=f"remembering {IDS:,} ids")
    for title in ("", *_TITLES.values()):
        shown.add_column(title)
    rows = {"rss_mib": "RSS MiB", "add_us": "µs to add one", "hit_us": "µs to find one", "miss_us": "µs to find none"}
    for key, text in rows.items():
        goal = f" (goal <= {GOALS[key]:g})" if key in GOALS else ""
        shown.add_row(text + goal, *(f"{figures[each][key]:.2f}" for each in _TITLES))
    shown.add_section()
    deliveries = figures["deliveries"]
    goal = f" (goal <= {GOALS['delivery_us']:g})"
    for key, text in (
        ("filling_us", f"µs per new delivery, index filling{goal}"),
        ("full_us", f"µs per new delivery, index full{goal}"),
        ("repeat_us", "µs per repeat"),
        ("rss_mib", "RSS MiB"),
    ):
        shown.add_row(text, "", "", f"{deliveries[key]:.2f}")
    shown.add_section()
    for size in SIZES:
        cells = (f"{figures[str(size)][key]:.2f}" for key in ("full_us", "repeat_us", "rss_mib"))
        shown.add_row(f"index full with {size:,} ids: µs per new delivery, per repeat; RSS MiB", *cells)
    return shown


def _store(name: str) -> dict[str, float]:
    before = _rss_mib()
    store = STORES[name]()
    adding = [_us(store.add, pairs) for pairs in _pairs(0, IDS)]
    rss = _rss_mib() - before
    rng = random.Random(1)  # noqa: S311 - no key
    hits = [_pair(rng.randrange(IDS)) for _ in range(LOOKUPS)]
    misses = [_pair(IDS + number) for number in range(LOOKUPS)]
    assert all(store.known(*pair) for pair in hits)
    assert not any(store.known(*pair) for pair in misses)
    return {
        "rss_mib": rss,
        "add_us": sum(adding) / len(adding),
        "hit_us": _us(store.known, hits),
        "miss_us": _us(store.known, misses),
    }


def _deliveries() -> dict[str, float]:
    before = _rss_mib()
    dedupe = KnownIds(windows_s={"drx": 86_400}, capacity=IDS)
    filling = [_us(partial(_deliver, dedupe), identities) for identities in _identities(0, IDS)]
    return {"rss_mib": _rss_mib() - before, "filling_us": sum(filling) / len(filling), **_when_full(dedupe, IDS)}


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
    full = [_us(partial(_deliver, dedupe), identities) for identities in _identities(IDS, IDS + LOOKUPS)]
    assert len(dedupe) == count
    newest = range(IDS + LOOKUPS - min(count, LOOKUPS), IDS + LOOKUPS)
    repeats = [_us(lambda each: dedupe.begin([each]), each) for each in _identities(newest.start, newest.stop)]
    return {"full_us": sum(full) / len(full), "repeat_us": sum(repeats) / len(repeats)}


def _deliver(dedupe: KnownIds, identity: Identity) -> None:
    dedupe.begin([identity])
    dedupe.settled(identity, "committed")


def _pair(number: int) -> tuple[int, int]:
    """A key spread over 64 bits, signed, and a body; equal numbers, equal pairs."""
    rng = random.Random(number)  # noqa: S311 - no key
    return rng.getrandbits(64) - (1 << 63), rng.getrandbits(64)


def _pairs(first: int, end: int) -> Iterator[list[tuple[int, int]]]:
    for start in range(first, end, SLICE):
        yield [_pair(number) for number in range(start, start + SLICE)]


def _identities(first: int, end: int) -> Iterator[list[tuple[Identity]]]:
    """Identities as an ingress makes them, each wrapped as the arguments of a call."""
    for start in range(first, end, SLICE):
        yield [
            (Identity("drx", f"evt_{number:026d}", f"{_pair(number)[1]:016x}{0:048x}"),)
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
    if wanted in STORES:
        measured = _store(wanted)
    else:
        measured = _deliveries() if wanted == "deliveries" else _with_ids(int(wanted))
    sys.stdout.buffer.write(orjson.dumps(measured))
