from hypothesis import given
from hypothesis import strategies as st

from bridge.kafka.consumed_record import ConsumedRecord
from consumers.runtime.ledger import Claim
from consumers.runtime.park_limit import ParkLimitError
from consumers.runtime.partition import WAITS_S, Partition
from consumers.runtime.window import Window
from tests.settling import PLACE, WHEN, a_record

MEGABYTE = 1_000_000


def test_the_window_counts_all_that_a_record_holds() -> None:
    """Another producer may put a megabyte into a key or a header: a thousand of them would be a gigabyte."""
    window, sizes = Window(0), []
    for offset, (key, value, header) in enumerate([(MEGABYTE, 0, 0), (0, MEGABYTE, 0), (0, 0, MEGABYTE)]):
        before = window.size
        record = ConsumedRecord("t", 0, offset, 1, b"k" * key, b"v" * value, [("x", b"h" * header), ("ce_id", b"e")])
        assert window.take(record, now=0.0)
        sizes.append(window.size - before)

    assert min(sizes) >= MEGABYTE
    window.settle([0])
    assert window.last_event_id == "e"


def test_a_partition_waits_once_no_record_was_settled_for_long_unless_it_is_stopped() -> None:
    partition = Partition(PLACE, Claim(1, 0, None, None, frozenset(), set(), WHEN))
    partition.open(0)
    for offset, now in enumerate((1_000.0, 1_200.0)):
        partition.take(a_record(offset), now=now)
    waits = [partition.waits(1_000.0 + WAITS_S + late) for late in (0, 1)]
    partition.stop(ParkLimitError())

    assert (waits, partition.waits(2_000.0)) == ([False, True], False)


def a_window(*offsets: int, start: int = 0, settled: tuple[int, ...] = ()) -> Window:
    window = Window(start, settled=settled)
    for offset in offsets:
        window.add(offset, size=10, event_id=f"evt_{offset}", now=float(offset))
    return window


def test_what_an_earlier_process_settled_is_not_taken_in() -> None:
    window = Window(5, settled=[6])

    taken = [window.add(offset, size=1, event_id="e", now=0.0) for offset in (5, 6, 7, 7)]
    window.settle([5])

    assert (taken, window.next_offset) == ([True, False, True, False], 7)
    assert not Window(5, settled=[5]).add(5, size=1, event_id="e", now=0.0)


def test_what_an_earlier_process_settled_last_is_passed_when_it_comes() -> None:
    window = a_window(5, start=5, settled=(6,))
    window.settle([5])

    assert not window.add(6, size=10, event_id="evt_6", now=6.0)
    assert (window.next_offset, window.last_event_id) == (7, "evt_6")


@given(
    gaps=st.lists(st.integers(1, 3), min_size=1, max_size=30),
    order=st.randoms(use_true_random=False),
    sizes=st.integers(1, 5),
)
def test_whatever_the_order_the_mark_is_what_is_contiguous(gaps: list[int], order: object, sizes: int) -> None:
    offsets = [sum(gaps[: number + 1]) for number in range(len(gaps))]
    window = a_window(*offsets)
    left = list(offsets)
    order.shuffle(left)  # type: ignore[attr-defined]  # a random.Random
    while left:
        some, left = left[:sizes], left[sizes:]
        seen = window.preview(set(some))
        window.settle(some)
        contiguous = [offset for offset in offsets if all(each not in left for each in offsets if each <= offset)]
        settled_to = contiguous[-1] + 1 if contiguous else 0
        assert (window.next_offset, seen.next_offset) == (settled_to, settled_to)
        assert seen.above == tuple(sorted(offset for offset in some if offset >= settled_to))
        assert (window.unsettled, window.size) == (len(left), 10 * len(left))
