from __future__ import annotations

from bridge.kafka.transport import ConsumedRecord
from consumers.runtime.subscriber import PartitionLag


def a_record(offset: int) -> ConsumedRecord:
    return ConsumedRecord("t", 0, offset, 1_000, b"rx_1", b"v", [])


def test_what_no_reader_sees_is_no_lag_once_it_has_been_passed() -> None:
    """A transaction leaves a marker behind its last record: with it, the lag of a quiet topic would never be 0."""
    progress = PartitionLag(0, now=0.0)
    progress.offered([a_record(0)])
    before = progress.lag(2, position=2, now=0.0, now_ms=2_000)
    progress.observe(1, activity=1, halted=False, now=1.0)

    assert before == (2, 1.0)
    assert progress.lag(2, position=2, now=1.0, now_ms=2_000) == (0, 0.0)


def test_what_has_not_been_read_yet_is_lag() -> None:
    progress = PartitionLag(0, now=0.0)
    progress.offered([a_record(0)])
    progress.observe(1, activity=1, halted=False, now=1.0)

    assert progress.lag(3, position=2, now=1.0, now_ms=2_000)[0] == 1
    assert progress.lag(3, position=None, now=1.0, now_ms=2_000)[0] == 2
