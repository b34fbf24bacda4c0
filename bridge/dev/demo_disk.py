"""The demo's own eyes on the spool's directory, beside the process that has it open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

from bridge.kafka.partition_writer import from_entry
from bridge.spool.inspect import survey
from bridge.spool.keys import KeyRing

# A drain begins when the ingress has found its brokers again, within seconds; this is the last resort.
DRAIN_S = 60.0
POLL_S = 0.05


class SpoolWitness:
    """Reads what is there; changes nothing."""

    def __init__(self, directory: Path, key_dir: Path, *, wait_s: float = DRAIN_S) -> None:
        """Look into `directory`, with the keys of `key_dir`."""
        self._directory = directory
        self._keys = KeyRing(key_dir)
        self._wait_s = wait_s

    def files(self) -> Mapping[str, bytes]:
        """Return every file with its content."""
        found = (path for path in sorted(self._directory.rglob("*")) if path.is_file())
        return {str(path.relative_to(self._directory)): path.read_bytes() for path in found}

    def waiting(self) -> int:
        """Return how many events are held and not yet acknowledged by Kafka."""
        self._keys.load()
        return sum(state.waiting for state in survey(self._directory, self._keys.opening, read=from_entry))

    async def drained(self) -> int:
        """Return how many are left when there are none, or after a while."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._wait_s
        while (left := self.waiting()) and loop.time() < deadline:  # noqa: ASYNC110 - files of others give no event
            await asyncio.sleep(POLL_S)
        return left
