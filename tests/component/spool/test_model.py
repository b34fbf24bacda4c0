"""Any sequence of appends, drops, faults, crashes and restarts, against a few lists that say what must be left."""

import asyncio
import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Coroutine
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bridge.errors import NotDurableError
from bridge.runtime.io_thread import IOThread
from bridge.spool.segment import SpoolPartition, segment_bytes
from tests.fault_disk import FaultDisk
from tests.spooling import ALL, Kept, an_entry, make_spool, ordinals, write_key

PARTITIONS: list[SpoolPartition] = [("drx.prescriptions.v1", 0), ("drx.prescriptions.v1", 1), ("drx.accounts.v1", 0)]
# Small, so that a handful of records fills a segment, and some more the whole.
CAPACITY_BYTES = 1_500_000
PAYLOAD_BYTES = 30_000
WAIT_S = 30.0
# Of most starts none; of some, those of one look at a segment or of several.
READ_FAILURES = st.sampled_from([0, 0, 0, 1, 2, 5])


class SpoolMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = Path(tempfile.mkdtemp(prefix="drx-spool-"))
        self.waiting: dict[SpoolPartition, list[int]] = defaultdict(list)
        self.dropped: dict[SpoolPartition, list[int]] = defaultdict(list)
        self.next = 1
        self.unmarked = 0
        self.key = 1
        write_key(self.directory / "keys", secret=bytes([self.key]) * 32)
        self.kept = self._open()

    def _run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.runner.run(work)

    def _open(self, read_failures: int = 0) -> Kept:
        self.disk = FaultDisk(self.directory)
        self.disk.read_failures = read_failures
        kept = make_spool(self.directory, capacity_bytes=CAPACITY_BYTES, disk=self.disk)
        self._run(kept.spool.open(kept.found))
        assert kept.spool.code == ""
        return kept

    def _found(self, partition: SpoolPartition) -> list[int]:
        """Tell what was found, also what the disk gave back a little later."""
        return sorted(ordinals(entry for entry in self.kept.found if entry.partition == partition))

    @rule(places=st.lists(st.sampled_from(PARTITIONS), min_size=1, max_size=4))
    def append(self, places: list[SpoolPartition]) -> None:
        """All of a call are there, or none."""
        numbers = range(self.next, self.next + len(places))
        self.next += len(places)
        call = [
            an_entry(number, partition=partition, payload=bytes(PAYLOAD_BYTES))
            for number, partition in zip(numbers, places, strict=True)
        ]
        try:
            self._run(_wait_for(self.kept, call))
        except NotDurableError:
            return
        for number, partition in zip(numbers, places, strict=True):
            self.waiting[partition].append(number)

    @rule(partition=st.sampled_from(PARTITIONS), count=st.integers(1, 6))
    def drop(self, partition: SpoolPartition, count: int) -> None:
        """Acknowledge from the head."""
        count = min(count, len(self.waiting[partition]))

        async def act() -> None:
            self.kept.spool.acknowledge(partition, count)

        self._run(act())
        self.dropped[partition] += self.waiting[partition][:count]
        del self.waiting[partition][:count]

    @rule()
    def turn_the_key(self) -> None:
        """The old one stays to open what it sealed."""
        keys = self.directory / "keys"
        (keys / "current").rename(keys / f"key-{self.key}")
        self.key += 1
        write_key(keys, secret=bytes([self.key]) * 32)

    @rule(failures=st.sampled_from([1, 2, 3]))
    def fail_to_sync(self, failures: int) -> None:
        self.disk.sync_failures = failures

    @rule(failures=st.sampled_from([1, 2, 3]))
    def fail_to_write(self, failures: int) -> None:
        self.disk.write_failures = failures

    @rule(failures=READ_FAILURES)
    def fail_to_read(self, failures: int) -> None:
        """The next reads fail; nothing on the disk is the worse for it."""
        self.disk.read_failures = failures

    @rule(room=st.sampled_from([0, 20_000, 100_000, 1_000_000]))
    def run_full(self, room: int) -> None:
        """Only so much more can be written."""
        used = sum(path.stat().st_size for path in self.directory.iterdir() if path.is_file())
        self.disk.room_bytes = used + room

    @rule()
    def have_room(self) -> None:
        """All is well again, and is noticed."""
        self.disk.room_bytes = None
        self.disk.sync_failures = self.disk.write_failures = 0
        self._run(self.kept.spool.tend())
        room = CAPACITY_BYTES - self.kept.value("bytes")
        assert (
            self.kept.spool.code in {"", "full"} if room < segment_bytes(CAPACITY_BYTES) else not self.kept.spool.code
        )

    @rule(read_failures=READ_FAILURES)
    def restart(self, read_failures: int) -> None:
        """What was dropped does not come back."""
        self.disk.room_bytes = None
        self.disk.sync_failures = self.disk.write_failures = 0
        self._run(self.kept.spool.close())
        self.kept = self._open(read_failures)
        for partition in PARTITIONS:
            assert self._found(partition) == self.waiting[partition]

    @rule(read_failures=READ_FAILURES)
    def crash(self, read_failures: int) -> None:
        """What was dropped last may come back, in front of what waits and in order; nothing else does."""
        spool = self.kept.spool
        # Without its mark nobody can tell whether a file lost its end, so that counts.
        self.unmarked += len(spool._writer._unmarked)
        for thread in (spool._writing, spool._reading):
            _end(thread)
        os.close(spool._directory._lock or 0)
        self.kept = self._open(read_failures)
        for partition in PARTITIONS:
            found, waiting = self._found(partition), self.waiting[partition]
            again = found[: len(found) - len(waiting)]
            assert found[len(again) :] == waiting
            assert again == [number for number in self.dropped[partition] if number in again]
            self.waiting[partition] = found
            self.dropped[partition] = [number for number in self.dropped[partition] if number not in again]

    @precondition(lambda self: not self.disk.room_bytes)
    @invariant()
    def nothing_is_missing_or_damaged(self) -> None:
        """Depth, content and order are what the lists say."""
        for partition in PARTITIONS:
            assert self.kept.spool.depth(partition) == len(self.waiting[partition])
            while self.disk.read_failures and self.waiting[partition]:
                peeked = self._peek(partition)
                assert peeked == self.waiting[partition][: len(peeked)]
            assert self._peek(partition) == self.waiting[partition]
        assert self.kept.value("corrupt_records_total") <= self.unmarked
        assert self.kept.value("torn_tails_total") == self.kept.value("unread_segments") == 0
        assert self.kept.value("events") == sum(map(len, self.waiting.values()))

    def _peek(self, partition: SpoolPartition) -> list[int]:
        return ordinals(self._run(self.kept.spool.peek(partition, most=ALL, most_bytes=ALL * 1000)))

    def teardown(self) -> None:
        self._run(self.kept.spool.close())
        self.runner.close()
        shutil.rmtree(self.directory)


def _end(thread: IOThread) -> None:
    """End a thread as a crash does, after the call that it is at: a dead process removes no file of the next one."""
    ended: Future[None] = Future()
    thread._calls.put((lambda: None, ended))
    thread.end()
    ended.result(WAIT_S)


async def _wait_for(kept: Kept, call: list[Any]) -> None:
    await kept.spool.append(call)


SpoolMachine.TestCase.settings = settings(max_examples=20, stateful_step_count=30)
TestSpool = SpoolMachine.TestCase
