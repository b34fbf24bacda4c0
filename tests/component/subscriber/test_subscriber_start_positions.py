"""The start offset of a partition: the settled position, else by policy; never past a gap."""

from collections.abc import Collection

import pytest

from bridge.errors import ConfigError
from bridge.kafka.consumed_record import TopicPartition
from consumers.postgres.text import TEXT_MAX_BYTES, stored_text
from consumers.runtime.start_positions import Adoption, StartPolicy
from tests.component.subscriber.group import A, B, Group, turns
from tests.logs import capture_logs
from tests.waiting import until

FOREIGN = "x" * (TEXT_MAX_BYTES + 1)


async def test_an_offset_that_only_kafka_has_counts_for_nothing(group: Group) -> None:
    """The database was restored from a backup in which the partition had no progress: what lies below was lost."""
    group.kafka.add(A, "a", "b")
    group.kafka.offsets = {A: 1, B: 0}

    async with group.running():
        await until(lambda: group.processor.ids(A) == ["a", "b"])


@pytest.mark.parametrize(("policy", "ids"), [("earliest", ["b", "later"]), ("latest", ["later"])])
async def test_where_nobody_has_read_the_policy_decides(group: Group, policy: StartPolicy, ids: list[str]) -> None:
    group.policy = policy
    group.kafka.add(A, "a", "b")
    group.kafka.expire(A, 1)

    async with group.running():
        await until(lambda: A in group.processor.next_offsets)
        group.kafka.add(A, "later")
        await until(lambda: group.processor.ids(A) == ids)


async def test_with_no_place_to_begin_at_the_process_ends_and_says_what_to_do(group: Group) -> None:
    group.policy = "none"

    with pytest.raises(ConfigError, match="group 'desk' begins; drx-consumer init counter --from"):
        await group.run_to_its_end()

    assert group.transport.stopped


@pytest.mark.parametrize(
    ("begun", "written", "word"), [({"t"}, [], "ok"), ({"t"}, ["b"], "not_initialized"), ((), [], "not_initialized")]
)
async def test_a_new_partition_without_a_place_is_stopped_unless_it_is_empty_and_the_others_go_on(
    group: Group, begun: Collection[str], written: list[str], word: str
) -> None:
    """Nothing of an empty one can have been missed. The ingress never writes to it, so that it stays empty."""
    group.policy, group.begun = "none", begun
    group.processor.stored = {A: Adoption(0, None)}
    group.kafka.add(A, "a")
    group.kafka.add(B, *written)

    async with group.running() as running:
        await until(lambda: group.processor.ids(A) == ["a"])
        await until(lambda: running.ready() == word and running.degraded() == ("ok" if word == "ok" else "degraded"))


async def test_offsets_lost_while_reading_have_the_client_rebuilt(group: Group) -> None:
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 1, B: 0})
        group.kafka.offsets.clear()
        group.transport.failure = "offset_missing"

        await until(lambda: len(group.transports) == 2 and group.kafka.offsets == {A: 1, B: 0})

        assert group.transports[0].stopped
        assert group.sample("client_rebuilds_total") == 1


async def test_a_batch_that_cannot_be_read_stops_its_partition_only_after_what_lies_before_it(group: Group) -> None:
    group.kafka.add(A, "a", "b", "c")
    group.kafka.corrupt[A] = 2
    group.kafka.add(B, "other")

    with capture_logs() as logs:
        async with group.running() as running:
            await until(lambda: running.ready() == "batch_unreadable")
            await until(lambda: group.kafka.offsets == {A: 2, B: 1})
            group.kafka.add(B, "later")
            await until(lambda: group.processor.ids(B) == ["other", "later"])
            assert A in group.transport.paused
            assert (running.degraded(), running.live()) == ("degraded", "ok")
            assert group.sample("consumer_stopped_partitions", code="batch_unreadable") == 1
            assert group.sample("client_rebuilds_total") == 0

    assert group.processor.ids(A) == ["a", "b"]
    (line,) = [each for each in logs if each["event"] == "worker.partition_stopped"]
    assert (line["topic"], line["partition"], line["offset"], line["code"]) == ("t", 0, 2, "batch_unreadable")


@pytest.mark.parametrize(
    ("start", "log", "stored", "code"),
    [
        (2, ["a", "b", "c"], Adoption(1, "a"), "offset_expired"),
        (0, ["a"], Adoption(3, "c"), "offset_beyond_end"),
        (0, ["x", "y", "z"], Adoption(2, "b"), "topic_recreated"),
    ],
)
async def test_a_log_that_is_not_what_it_was_stops_its_partition_only(
    group: Group, start: int, log: list[str], stored: Adoption, code: str
) -> None:
    group.kafka.add(A, *log)
    group.kafka.expire(A, start)
    group.kafka.add(B, "other")
    group.processor.stored[A] = stored

    with capture_logs() as logs:
        async with group.running() as running:
            await until(lambda: running.ready() == code)
            await until(lambda: group.processor.ids(B) == ["other"])
            await turns(group)
            assert A in group.transport.paused
            assert group.sample("consumer_stopped_partitions", code=code) == 1

    assert group.sample("consumer_stopped_partitions", code=code) == 0
    assert group.processor.ids(A) == []
    assert A not in group.kafka.offsets
    (line,) = [each for each in logs if each["event"] == "worker.partition_stopped"]
    assert (line["log_level"], line["topic"], line["partition"], line["code"]) == ("error", "t", 0, code)
    assert "drx-consumer init counter --partition t/0 --from earliest" in line["hint"]


@pytest.mark.parametrize(
    ("start", "second", "stored", "corrupt"),
    [
        (0, "b", "b", {}),
        (2, "b", "b", {}),
        (2, "b", "gone", {}),
        (0, "b", None, {}),
        (1, "b", "b", {}),
        (0, FOREIGN, stored_text(FOREIGN), {}),  # the ledger keeps it shortened
        (0, "b", "b", {A: 1}),  # a batch of settled records that cannot be read any more
    ],
)
async def test_a_log_that_is_what_it_was_goes_on_from_the_mark(
    group: Group, start: int, second: str, stored: str | None, corrupt: dict[TopicPartition, int]
) -> None:
    """What lies before the start of the log can be compared no more, and was settled."""
    group.kafka.add(A, "a", second, "c")
    group.kafka.expire(A, start)
    group.kafka.corrupt |= corrupt
    group.processor.stored[A] = Adoption(2, stored)

    async with group.running() as running:
        await until(lambda: group.processor.ids(A) == ["c"])
        assert running.ready() == "ok"


async def test_an_end_that_lags_behind_after_a_failover_is_looked_at_again(group: Group) -> None:
    group.kafka.add(A, "a")
    group.processor.stored[A] = Adoption(2, "b")
    bounds, looks = group.kafka.bounds, iter([1, 1])

    def catching_up(tp: TopicPartition) -> object:
        if tp == A and next(looks, None) is None and len(group.kafka.logs[A]) == 1:
            group.kafka.add(A, "b")
        return bounds(tp)

    group.kafka.bounds = catching_up  # type: ignore[method-assign,assignment]
    async with group.running() as running:
        await until(lambda: A in group.processor.next_offsets)
        assert running.ready() == "ok"
