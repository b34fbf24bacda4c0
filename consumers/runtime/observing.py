"""Report once in a while what is in flight and what is parked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from bridge.errors import TransientError
from consumers.postgres.pool import Database
from consumers.runtime import parking
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.parking import ParkingFullError
from consumers.runtime.share import Share

IN_FLIGHT_S = 1.0
# Counting what is parked is a query; alarms on it look back minutes.
PARKED_EVERY = 15


async def observe(
    metrics: ConsumerMetrics, shares: Callable[[], Iterable[Share]], *, database: Database, group: str
) -> None:
    """Report until cancelled."""
    service = metrics.service
    looks = 0
    while True:
        if looks % PARKED_EVERY == 0:
            await _count_parked(metrics, database, group)
        looks += 1
        now = asyncio.get_running_loop().time()
        held = list(shares())
        full = sum(share.stopped == ParkingFullError.code for share in held)
        metrics.parking_full_partitions.labels(service).set(full)
        windows = [share.window for share in held]
        metrics.inflight_records.labels(service).set(sum(window.unsettled for window in windows))
        oldest_s = max((window.oldest_age_s(now) for window in windows), default=0.0)
        metrics.oldest_inflight_age.labels(service).set(oldest_s)
        await asyncio.sleep(IN_FLIGHT_S)


async def _count_parked(metrics: ConsumerMetrics, database: Database, group: str) -> None:
    try:
        census = await parking.census(database, group)
    except TransientError:
        return  # the last figures stand; what settles records says that the database is away
    service = metrics.service
    metrics.parked_keys.labels(service).set(census.keys)
    metrics.parked_events.labels(service).set(census.events)
    metrics.parked_oldest_age.labels(service).set(census.oldest_age_s)
