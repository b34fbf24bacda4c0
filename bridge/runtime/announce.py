"""Log when a process becomes ready, and which checks fail while it is not."""

import asyncio
from collections.abc import Mapping

from bridge.runtime.health import Check, judge
from bridge.runtime.lifecycle import pause
from bridge.runtime.logging import log

PERIOD_S = 0.25
# Seconds. A start with a working Kafka takes tenths of a second; a longer one is logged once, with its cause.
START_S = 5.0


class Readiness:
    """A worker that logs `worker.ready` and `worker.not_ready` when the result of `/readyz` changes."""

    def __init__(self, checks: Mapping[str, Check], *, settle_s: float = 0.0, **fields: str) -> None:
        """`fields` are logged with each line; a degraded process is logged as ready only after `settle_s`."""
        self._checks = checks
        self._settle_s = settle_s
        self._fields = fields

    async def run(self, stop: asyncio.Event) -> None:
        """Check once a period until `stop` is set."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        was_ready: bool | None = None
        settling_since: float | None = None
        while not stop.is_set():
            status, results, _ = judge(self._checks)
            is_ready = status != "unavailable"
            if not is_ready:
                settling_since = None
            if is_ready and not was_ready:
                settling_since = loop.time() if settling_since is None else settling_since
                if status == "ok" or loop.time() - settling_since >= self._settle_s:
                    log.info("worker.ready", **self._fields, **_failing(results))
                    was_ready, settling_since = True, None
            elif not is_ready and (was_ready or (was_ready is None and loop.time() - began >= START_S)):
                log.warning("worker.not_ready", **self._fields, **_failing(results))
                was_ready = False
            await pause(stop, PERIOD_S)


def _failing(results: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Return the checks that are not `ok`, as a log field; empty if all are."""
    failing = {name: result for name, result in results.items() if result != "ok"}
    return {"checks": failing} if failing else {}
