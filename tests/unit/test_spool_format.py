"""Records as bytes: only encrypted records with a valid tag can be decrypted."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.spool.payload import Content, pack, unpack
from bridge.spool.segment import HEADER_BYTES, Entry, decrypt, encrypt, encrypted_size, end_mark, key_of, scan
from tests.spooling import MARKER, an_entry

KEY = key_of(b"k" * 32)
KEYS = {KEY.id: KEY}
SEGMENT = 77
ENTRY = an_entry(5)


def record(number: int, *, segment: int = SEGMENT, entry: Entry | None = None) -> bytes:
    return encrypt(entry or an_entry(number), segment=segment, number=number, key=KEY, nonce=os.urandom(12))


def records(count: int) -> list[bytes]:
    return [record(number, entry=an_entry(number, payload=MARKER)) for number in range(count)]


def numbers(content: bytes, *, newest: bool = False) -> list[int]:
    return [each.header.number for each in scan(content, segment=SEGMENT, newest=newest, keys=KEYS).records]


@given(
    ordinal=st.integers(0, 2**64 - 1),
    at_ms=st.integers(0, 2**64 - 1),
    topic=st.text(min_size=1, max_size=249),
    partition=st.integers(0, 2**31),
    payload=st.binary(max_size=4096),
)
def test_what_is_sealed_is_opened_again(ordinal: int, at_ms: int, topic: str, partition: int, payload: bytes) -> None:
    entry = Entry(ordinal, at_ms, (topic, partition), payload)

    sealed = record(0, entry=entry)

    assert decrypt(sealed, KEY) == entry
    assert len(sealed) == encrypted_size(entry)


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_anywhere_is_noticed(bit: int) -> None:
    sealed = record(0)
    for at in range(len(sealed)):
        changed = bytearray(sealed)
        changed[at] ^= 1 << bit

        assert decrypt(bytes(changed), KEY) is None, at
        assert numbers(bytes(changed)) == [], at


def test_a_head_that_was_made_to_fit_its_check_sum_does_not_open() -> None:
    """The check sums are for accidents; the seal covers the head as well."""
    sealed = encrypt(ENTRY, segment=SEGMENT, number=0, key=KEY, nonce=bytes(12))
    other = encrypt(ENTRY._replace(ordinal=6), segment=SEGMENT, number=0, key=KEY, nonce=bytes(12))

    assert decrypt(other[:HEADER_BYTES] + sealed[HEADER_BYTES:], KEY) is None


def test_another_key_opens_nothing() -> None:
    sealed = record(0)

    assert decrypt(sealed, key_of(b"x" * 32)) is None
    assert decrypt(sealed, key_of(b"x" * 32)._replace(id=KEY.id)) is None


def test_a_record_of_another_file_is_no_record_of_this() -> None:
    """After a crash a file system may show blocks of a file that was removed."""
    content = record(0) + record(1, segment=SEGMENT + 1) + record(1) + end_mark(SEGMENT, 2, KEY)

    found = scan(content, segment=SEGMENT, newest=False, keys=KEYS)

    assert [each.header.number for each in found.records] == [0, 1]
    assert found.damage == [(len(record(0)), 2 * len(record(0)))]
    assert found.lost == 1


@pytest.mark.parametrize("kept", [1, 4, 8, 30, HEADER_BYTES, HEADER_BYTES + 1, -1])
def test_an_unfinished_last_write_is_no_damage(kept: int) -> None:
    sealed = records(3)
    content = sealed[0] + sealed[1] + sealed[2][:kept]

    newest = scan(content, segment=SEGMENT, newest=True, keys=KEYS)
    older = scan(content, segment=SEGMENT, newest=False, keys=KEYS)

    assert (newest.torn_at, newest.damage, newest.lost) == (len(sealed[0] + sealed[1]), [], 0)
    assert (older.torn_at, older.lost) == (None, 1)
    assert len(newest.records) == len(older.records) == 2


@pytest.mark.parametrize("kept", range(4))
def test_a_file_that_lost_its_end_between_two_records_is_told_from_one_that_was_never_longer(kept: int) -> None:
    sealed, end = records(3), end_mark(SEGMENT, 3, KEY)
    whole, cut = b"".join([*sealed, end]), b"".join(sealed[:kept])

    for content, newest, lost in ((whole, False, 0), (cut, False, 1), (cut, True, 0), (cut + end, False, 3 - kept)):
        assert scan(content, segment=SEGMENT, newest=newest, keys=KEYS).lost == lost
    assert decrypt(end, KEY) is None


@pytest.mark.parametrize(("end", "torn_at", "lost"), [(bytes(5000), len(record(0)), 0), (b"garbage" * 100, None, 1)])
def test_a_file_that_grew_without_its_content_is_torn_and_garbage_at_the_end_is_damage(
    end: bytes, torn_at: int | None, lost: int
) -> None:
    found = scan(record(0) + end, segment=SEGMENT, newest=True, keys=KEYS)

    assert (found.torn_at, found.lost, len(found.damage)) == (torn_at, lost, lost)


BYTES = st.binary(max_size=64)
HEADERS = st.lists(st.tuples(st.text(max_size=8), BYTES), max_size=20)


@given(st.tuples(BYTES, st.none() | BYTES, HEADERS, st.integers(-(2**63), 2**63 - 1)))
def test_a_payload_comes_back_from_the_spool_as_it_was(content: Content) -> None:
    assert unpack(pack(*content)) == content
