from __future__ import annotations

from bridge.kafka.transport import ConsumedRecord, Place
from consumers.runtime.ledger import Claim
from consumers.runtime.partition import Partition

NOTHING = Claim(1, 0, None, None, frozenset(), frozenset(), deaths=0, attempt_offset=None, attempts=0)
MEGABYTE = 1_000_000


def test_the_window_counts_all_that_a_record_holds() -> None:
    """Another producer may put a megabyte into a key or a header: a thousand of them would be a gigabyte."""
    partition = Partition(Place("t", 0), NOTHING)
    partition.open(0)

    sizes = []
    for offset, (key, value, header) in enumerate([(MEGABYTE, 0, 0), (0, MEGABYTE, 0), (0, 0, MEGABYTE)]):
        before = partition.window.size
        record = ConsumedRecord("t", 0, offset, 1, b"k" * key, b"v" * value, [("x", b"h" * header)])
        assert partition.take(record, now=0.0)
        sizes.append(partition.window.size - before)

    assert min(sizes) >= MEGABYTE
