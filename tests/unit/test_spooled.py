from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bridge.event import Identity
from bridge.kafka.record import Record
from bridge.kafka.spooled import identity_of, pack, unpack

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


def test_the_identity_of_an_event_stands_in_its_headers() -> None:
    headers = [
        ("ce_id", b"evt_1"),
        ("ce_source", b"drx"),
        ("drx_body_sha256", b"ab"),
        ("ce_type", b"prescription.sent"),
    ]

    assert identity_of(headers) == Identity("drx", "evt_1", "ab")


def test_the_identity_of_a_parked_delivery_says_why() -> None:
    headers = [("ce_id", b"wh_1"), ("ce_source", b"drx"), ("drx_body_sha256", b"ab"), ("drx_reason", b"unusable")]

    assert identity_of(headers) == Identity("drx", "wh_1", "ab", "unusable")
