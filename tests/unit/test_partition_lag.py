from bridge.kafka.consumed_record import ConsumedRecord
from consumers.runtime.member import PartitionLag


def a_record(offset: int) -> ConsumedRecord:
    return ConsumedRecord("t", 0, offset, 1_000, b"rx_1", b"v", [])


def test_what_no_reader_sees_is_no_lag_once_it_has_been_passed() -> None:
    """A transaction leaves a marker behind its last record: with it, the lag of a quiet topic would never be 0."""
    lag = PartitionLag(0)
    lag.offered([a_record(0)])
    assert lag.behind(2, position=2, now=0.0, now_ms=2_000) == (2, 1.0)
    lag.observe(1)

    assert lag.behind(2, position=2, now=1.0, now_ms=2_000) == (0, 0.0)


def test_what_has_not_been_read_yet_is_lag() -> None:
    lag = PartitionLag(0)
    lag.offered([a_record(0)])
    lag.observe(1)

    assert lag.behind(3, position=2, now=1.0, now_ms=2_000)[0] == 1
    assert lag.behind(3, position=None, now=1.0, now_ms=2_000)[0] == 2
