"""Spools on real files."""

import base64
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from bridge.kafka.record import Record
from bridge.runtime.metrics import IngressMetrics
from bridge.spool.disk import Disk
from bridge.spool.payload import pack
from bridge.spool.recovery import Drain
from bridge.spool.segment import Entry, SpoolPartition
from bridge.spool.store import Spool

CAPACITY_BYTES = 64 * 1024 * 1024
PARTITION: SpoolPartition = ("drx.prescriptions.v1", 3)
OTHER: SpoolPartition = ("drx.accounts.v1", 0)
# Strings that must not be in any file.
MARKER = b"PHI-canary-Adams-1961"
ALL = 1_000_000
NOBODY = 65_534
# An ordinary user may mount in a user namespace in which it is root.
NAMESPACE = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]


@contextmanager
def as_somebody() -> Iterator[None]:
    """Run as an ordinary user, since root may do everything."""
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(before)


def an_entry(ordinal: int, *, partition: SpoolPartition = PARTITION, payload: bytes | None = None) -> Entry:
    at_ms = 1_700_000_000_000 + ordinal
    return Entry(
        ordinal, at_ms, partition, pack(*a_record(ordinal, partition=partition)[2:]) if payload is None else payload
    )


def a_record(number: int, *, partition: SpoolPartition = PARTITION) -> Record:
    headers = [("ce_source", b"drx"), ("ce_id", b"evt_%d" % number), ("drx_body_sha256", b"00" * 32)]
    return Record(*partition, MARKER, MARKER, headers, 1_700_000_000_000 + number)


def entries(numbers: Iterable[int], *, partition: SpoolPartition = PARTITION) -> list[Entry]:
    return [an_entry(number, partition=partition) for number in numbers]


def ordinals(found: Iterable[Entry]) -> list[int]:
    return [entry.ordinal for entry in found]


def write_key(directory: Path, name: str = "current", secret: bytes = b"k" * 32) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / name
    path.write_bytes(b"spk_" + base64.b64encode(secret) + b"\n")
    path.chmod(0o600)
    return path


def files(directory: Path, pattern: str = "*") -> list[Path]:
    return sorted(path for path in directory.rglob(pattern) if path.is_file())


def segments(directory: Path) -> list[Path]:
    return files(directory, "*.segment")


def altered(content: bytes, at: int) -> bytes:
    """Return the content with another byte at `at`; a constant one would equal the old byte in one of 256 cases."""
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def damaged(directory: Path) -> list[Path]:
    return files(directory, "damaged/*")


class Found(list[Entry]):
    def recovered(self, entry: Entry) -> None:
        self.append(entry)

    def passed_over(self) -> None:
        """Know no ids that are only spooled."""


@dataclass
class Kept:
    """An open spool, its recovered records and its log lines."""

    spool: Spool
    metrics: IngressMetrics
    found: Found = field(default_factory=Found)

    def value(self, name: str) -> float:
        # Only this metric: collecting all of them would cost more than most operations of a spool.
        (metric,) = self.metrics.registry.restricted_registry([f"drxbridge_spool_{name}"]).collect()
        (sample,) = metric.samples
        return sample.value

    async def put(self, *ordinals: int, partition: SpoolPartition = PARTITION) -> None:
        await self.spool.append(entries(ordinals, partition=partition))

    async def head(self, partition: SpoolPartition = PARTITION) -> list[int]:
        return ordinals(await self.spool.peek(partition, most=ALL, most_bytes=ALL * 1000))


def make_spool(
    directory: Path,
    *,
    key_dir: Path | None = None,
    capacity_bytes: int = CAPACITY_BYTES,
    disk: Disk | None = None,
    now_ns: Callable[[], int] = time.time_ns,
    **bounds_s: Any,
) -> Kept:
    metrics = IngressMetrics(CollectorRegistry())
    spool = Spool(
        directory=directory,
        key_dir=key_dir or directory / "keys",
        capacity_bytes=capacity_bytes,
        metrics=metrics,
        disk=disk,
        now_ns=now_ns,
        **bounds_s,
    )
    return Kept(spool, metrics)


@asynccontextmanager
async def open_spool(
    directory: Path, *, drain: Callable[[Kept], Drain] = lambda kept: kept.found, **options: Any
) -> AsyncIterator[Kept]:
    kept = make_spool(directory, **options)
    await kept.spool.open(drain(kept))
    try:
        yield kept
    finally:
        await kept.spool.close()
