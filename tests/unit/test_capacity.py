"""The capacity table follows from its figures: checked by hand where the sums are easy."""

from __future__ import annotations

from docs import capacity


def test_each_line_is_worked_out_as_it_says() -> None:
    # 100,000 / 4,200 = 23.8, one spare; / 5,500 = 18.2; 19 x 4 = 76, in dozens 84; 265 MB/s / 50; 327 MB/s / 100.
    assert capacity.ingress(100_000) == 25
    assert capacity.readers(100_000) == 19
    assert capacity.partitions(100_000) == 84
    assert capacity.brokers(100_000) == 6
    assert capacity.databases(100_000) == 4


def test_a_trickle_needs_what_availability_needs() -> None:
    assert (capacity.ingress(1), capacity.readers(1), capacity.partitions(1)) == (3, 2, 12)
    assert (capacity.brokers(1), capacity.databases(1)) == (3, 1)


def test_sizes_are_written_with_their_unit() -> None:
    lines = {line.split(" | ")[0].strip("| "): line.split(" | ")[1:5] for line in capacity.table().splitlines()[2:]}

    assert lines["network into Kafka"] == ["88 KB/s", "882 KB/s", "8.8 MB/s", "88 MB/s"]
    assert lines["log of a year, all replicas"] == ["8.3 TB", "83 TB", "834 TB", "8.3 PB"]
    assert lines["1 GiB a pod lasts"] == ["7.8 h", "47 min", "6 min", "4 min"]
