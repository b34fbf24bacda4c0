"""The bridge with one promise broken on purpose: `python -m tests.faults.sabotage NAME serve`.

The harness must detect each of these. The bridge's code has no switches for them: a function is replaced before the
command runs.
"""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from bridge.cli import main as bridge_main
from bridge.errors import NotDurableError
from bridge.event import Durable, Identity, Settled
from bridge.kafka.accepted import Accepted
from bridge.kafka.partition_writer import CHECK_S, PartitionWriter, PartitionWriters, Pending
from bridge.kafka.record import Record
from bridge.known.known_ids import KnownIds
from bridge.spool import segment as spool_segment
from bridge.spool.segment import TAG_BYTES, Entry
from bridge.spool.store import Spool


def ack_before_write() -> None:
    """Respond 200 when a record is handed over, before its outcome."""
    enqueue = PartitionWriters.enqueue

    def hasty(self: PartitionWriters, accepted: Sequence[Accepted]) -> asyncio.Future[Durable]:
        enqueue(self, accepted).add_done_callback(lambda future: future.exception())
        answer: asyncio.Future[Durable] = asyncio.get_running_loop().create_future()
        answer.set_result("committed")
        return answer

    PartitionWriters.enqueue = hasty  # type: ignore[method-assign]


def drop_on_rebuild() -> None:
    """Treat records in memory as written when the circuit opens, and drop them."""
    switch = PartitionWriter._switch_to_spool

    def forgetful(self: PartitionWriter, front: Sequence[Pending] = ()) -> bool:
        for pending in (*self._in_flight, *self._waiting):
            self._commit(pending)
        return switch(self, front)

    PartitionWriter._switch_to_spool = forgetful  # type: ignore[method-assign]


def redrive_past_the_spool() -> None:
    """Send the records in memory after newer events of their partition from the spool.

    Not only records in flight: brokers that thaw may still write those first.
    """
    switch, put = PartitionWriter._switch_to_spool, PartitionWriter._put
    held: defaultdict[PartitionWriter, list[Record]] = defaultdict(list)

    def withholding(self: PartitionWriter, front: Sequence[Pending] = ()) -> bool:
        for pending in (*self._in_flight, *self._waiting):
            if pending.state == "open":
                self._commit(pending)
                held[self].append(pending.accepted.record)
        return switch(self, front)

    async def put_then_held(self: PartitionWriter, records: Sequence[Record]) -> tuple[int, NotDurableError | None]:
        outcome = await put(self, records)
        is_drain = not self._in_flight
        while is_drain and outcome[0] and held[self]:
            written, _ = await put(self, held[self])
            del held[self][:written]
            await asyncio.sleep(CHECK_S)  # or where that fails at once, nothing else would run
        return outcome

    PartitionWriter._switch_to_spool = withholding  # type: ignore[method-assign]
    PartitionWriter._put = put_then_held  # type: ignore[method-assign]


def reorder_on_drain() -> None:
    """Drain the spool from its end."""
    peek = Spool.peek

    async def reversed_peek(self: Spool, partition: tuple[str, int], *, most: int, most_bytes: int) -> list[Entry]:
        return list(reversed(await peek(self, partition, most=most, most_bytes=most_bytes)))

    Spool.peek = reversed_peek  # type: ignore[method-assign]


def unsealed_spool() -> None:
    """Write the spool in plaintext."""

    class Clear:
        def __init__(self, _: bytes) -> None:
            pass

        def encrypt(self, _nonce: bytes, inside: bytes, _clear: bytes) -> bytes:
            return inside + bytes(TAG_BYTES)

        def decrypt(self, _nonce: bytes, sealed: bytes, _clear: bytes) -> bytes:
            return sealed[:-TAG_BYTES]

    spool_segment.AESGCM = Clear  # type: ignore[assignment, attr-defined]


def dedupe_on_seen() -> None:
    """Treat every seen id as committed."""
    settled = KnownIds.settled

    def credulous(self: KnownIds, identity: Identity, state: Settled) -> None:
        settled(self, identity, "committed" if state == "failed" else state)

    KnownIds.settled = credulous  # type: ignore[method-assign]


def forget_the_log() -> None:
    """Ignore the ids in the topics."""

    def oblivious(self: KnownIds, identity: Identity, at_s: float, record_key: bytes = b"") -> None:
        """Remember no ids."""

    KnownIds.recalled = oblivious  # type: ignore[method-assign]


SABOTAGES: Mapping[str, Callable[[], None]] = {
    each.__name__: each
    for each in (
        ack_before_write,
        drop_on_rebuild,
        redrive_past_the_spool,
        reorder_on_drain,
        unsealed_spool,
        dedupe_on_seen,
        forget_the_log,
    )
}


def main(name: str, arguments: Sequence[str]) -> None:
    SABOTAGES[name]()
    sys.argv[1:] = arguments
    bridge_main()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
