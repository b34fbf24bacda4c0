from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.partition_writer import pack, unpack
from bridge.kafka.record import Record

BYTES = st.binary(max_size=64)
RECORDS = st.builds(
    Record,
    topic=st.just("t"),
    partition=st.just(3),
    key=BYTES,
    value=st.none() | BYTES,
    headers=st.lists(st.tuples(st.text(max_size=8), BYTES), max_size=20),
    timestamp_ms=st.integers(-(2**63), 2**63 - 1),
)


@given(RECORDS)
def test_a_record_comes_back_from_the_spool_as_it_was(record: Record) -> None:
    assert unpack(pack(record), "t", 3) == record
