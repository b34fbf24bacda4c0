"""The poll task, adoption, commits, the watchdog and the stop, on a group in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from bridge.errors import ConfigError
from bridge.kafka import adoption, committer, membership, subscriber
from bridge.kafka.adoption import StartPolicy
from bridge.kafka.settles import Adoption
from bridge.kafka.subscriber import Subscriber
from bridge.kafka.transport import ConsumedRecord, Place
from bridge.kafka.watchdog import Limits
from bridge.postgres.text import TEXT_MAX_BYTES, stored_text
from bridge.runtime.consumer_metrics import ConsumerMetrics
from tests.fake_settles import FakeSettles
from tests.fake_transport import FakeKafka, FakeTransport

HANG_S = 5.0
A, B = Place("t", 0), Place("t", 1)


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test see in milliseconds what production sees in seconds."""
    monkeypatch.setattr(adoption, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(adoption, "BEYOND_END_S", 0.001)
    monkeypatch.setattr(committer, "PERIOD_S", 0.01)
    monkeypatch.setattr(membership, "POLL_S", 0.02)
    monkeypatch.setattr(membership, "FAILED_S", 0.01)
    monkeypatch.setattr(subscriber, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr("bridge.kafka.watchdog.TICK_S", 0.01)


class Group:
    """A subscriber on a fake group, and what it uses."""

    def __init__(self) -> None:
        """Give every partition to one member."""
        self.kafka = FakeKafka({"t": 2})
        self.settles = FakeSettles()
        self.registry = CollectorRegistry()
        self.transports: list[FakeTransport] = []
        self.policy: StartPolicy = "earliest"
        self.limits = Limits(look_s=0.01)
        self.drain_s = 1.0
        self.gives: Collection[Place] | None = None
        self.task: asyncio.Task[None] | None = None
        self.subscriber: Subscriber

    @property
    def transport(self) -> FakeTransport:
        return self.transports[-1]

    def open(self) -> FakeTransport:
        self.transports.append(FakeTransport(self.kafka, gives=self.gives))
        return self.transport

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Subscriber]:
        self.subscriber = Subscriber(
            open_transport=self.open,
            settles=self.settles,
            metrics=ConsumerMetrics(self.registry, service="desk"),
            group="desk",
            policy=self.policy,
            drain_s=self.drain_s,
            limits=self.limits,
        )
        stop = asyncio.Event()
        self.task = asyncio.create_task(self.subscriber.run(stop))
        try:
            yield self.subscriber
        finally:
            stop.set()
            async with asyncio.timeout(HANG_S):
                await self.task

    async def run_to_its_end(self) -> None:
        """Run it until it ends by itself."""
        async with self.running():
            assert self.task is not None
            await asyncio.wait({self.task}, timeout=HANG_S)

    def sample(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"drxbridge_{name}", {"service": "desk", **labels})


@pytest.fixture
def group() -> Group:
    return Group()


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what the subscriber's tasks do."""
    async with asyncio.timeout(HANG_S):
        while not condition():  # noqa: ASYNC110 - the turns of the subscriber's own tasks are what is waited for
            await asyncio.sleep(0.001)


async def turns(group: Group, count: int = 3) -> None:
    """Return after some more polls: what would have happened has happened."""
    polls = len(group.transport.polled)
    await until(lambda: len(group.transport.polled) >= polls + count)


# Where a partition begins


async def test_records_are_offered_in_order_and_what_is_settled_is_committed(group: Group) -> None:
    group.kafka.add(A, "a", "b")
    group.kafka.add(B, "c")

    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 2, B: 1})

    assert (group.settles.ids(A), group.settles.ids(B)) == (["a", "b"], ["c"])


async def test_what_postgresql_says_counts_and_not_what_kafka_says(group: Group) -> None:
    group.kafka.add(A, "a", "b", "c")
    group.kafka.offsets = {A: 1, B: 0}
    group.settles.stored[A] = Adoption(2, "b")

    async with group.running():
        await until(lambda: group.settles.ids(A) == ["c"])


async def test_without_a_progress_row_the_groups_offset_counts(group: Group) -> None:
    group.policy = "none"
    group.kafka.add(A, "a", "b")
    group.kafka.offsets = {A: 1, B: 0}

    async with group.running():
        await until(lambda: group.settles.ids(A) == ["b"])


@pytest.mark.parametrize(("policy", "ids"), [("earliest", ["b", "later"]), ("latest", ["later"])])
async def test_where_nobody_has_read_the_policy_decides(group: Group, policy: StartPolicy, ids: list[str]) -> None:
    group.policy = policy
    group.kafka.add(A, "a", "b")
    group.kafka.expire(A, 1)

    async with group.running():
        await until(lambda: A in group.settles.marks)
        group.kafka.add(A, "later")
        await until(lambda: group.settles.ids(A) == ids)


async def test_with_no_place_to_begin_at_the_process_ends_and_says_what_to_do(group: Group) -> None:
    group.policy = "none"

    with pytest.raises(ConfigError, match="group 'desk' begins; drx-consumer init NAME --from"):
        await group.run_to_its_end()

    assert group.transport.stopped


async def test_a_new_partition_without_a_place_is_stopped_and_the_others_go_on(group: Group) -> None:
    group.policy = "none"
    group.kafka.offsets = {A: 0}
    group.kafka.add(A, "a")

    async with group.running() as running:
        await until(lambda: group.settles.ids(A) == ["a"])
        await until(lambda: running.ready() == "not_initialized")


async def test_an_offset_that_kafka_has_lost_is_committed_again(group: Group) -> None:
    """The group's offsets expire when it was away for a week; PostgreSQL's are valid."""
    group.kafka.add(A, "a", "b")
    group.settles.stored = {A: Adoption(2, "b"), B: Adoption(0, None)}
    group.policy = "none"

    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 2, B: 0})

    assert group.settles.ids(A) == []


async def test_offsets_lost_while_reading_have_the_client_rebuilt(group: Group) -> None:
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 1, B: 0})
        group.kafka.offsets.clear()
        group.transport.failure = "offset_missing"

        await until(lambda: len(group.transports) == 2 and group.kafka.offsets == {A: 1, B: 0})

        assert group.transports[0].stopped
        assert group.sample("client_rebuilds_total") == 1


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
    group.settles.stored[A] = stored

    with capture_logs() as logs:
        async with group.running() as running:
            await until(lambda: running.ready() == code)
            await until(lambda: group.settles.ids(B) == ["other"])
            await turns(group)
            assert A in group.transport.paused

    assert group.settles.ids(A) == []
    assert A not in group.kafka.offsets
    (line,) = [each for each in logs if each["event"] == "worker.partition_stopped"]
    assert (line["log_level"], line["topic"], line["partition"], line["code"]) == ("error", "t", 0, code)
    assert "drx-consumer init" in line["hint"]


@pytest.mark.parametrize(
    ("start", "stored"),
    [
        (0, Adoption(2, "b")),
        (2, Adoption(2, "b")),
        (2, Adoption(2, "gone")),
        (0, Adoption(2, None)),
        (1, Adoption(2, "b")),
    ],
)
async def test_a_log_that_is_what_it_was_goes_on_from_the_mark(group: Group, start: int, stored: Adoption) -> None:
    """What lies before the start of the log can be compared no more, and was settled."""
    group.kafka.add(A, "a", "b", "c")
    group.kafka.expire(A, start)
    group.settles.stored[A] = stored

    async with group.running():
        await until(lambda: group.settles.ids(A) == ["c"])


async def test_an_id_that_the_ledger_keeps_shortened_is_known_again(group: Group) -> None:
    foreign = "x" * (TEXT_MAX_BYTES + 1)
    group.kafka.add(A, "a", foreign, "c")
    group.settles.stored[A] = Adoption(2, stored_text(foreign))

    async with group.running():
        await until(lambda: group.settles.ids(A) == ["c"])


async def test_an_end_that_lags_behind_after_a_failover_is_looked_at_again(group: Group) -> None:
    group.kafka.add(A, "a")
    group.settles.stored[A] = Adoption(2, "b")
    bounds, looks = group.kafka.bounds, iter([1, 1])

    def catching_up(place: Place) -> object:
        if place == A and next(looks, None) is None and len(group.kafka.logs[A]) == 1:
            group.kafka.add(A, "b")
        return bounds(place)

    group.kafka.bounds = catching_up  # type: ignore[method-assign,assignment]
    async with group.running() as running:
        await until(lambda: A in group.settles.marks)
        assert running.ready() == "ok"


async def test_a_log_that_expires_under_the_reader_stops_the_partition(group: Group) -> None:
    group.kafka.add(A, "a")
    async with group.running() as running:
        await until(lambda: group.settles.ids(A) == ["a"])
        group.settles.full.add(A)
        await turns(group)
        group.kafka.add(A, "b", "c")
        group.kafka.expire(A, 3)
        group.settles.full.clear()

        await until(lambda: running.ready() == "offset_expired")


# Adoption


async def test_a_claim_is_retried_while_the_database_is_away_and_the_partition_stays_paused(group: Group) -> None:
    group.kafka.add(A, "a")
    group.settles.away = True
    async with group.running() as running:
        await until(lambda: len(group.settles.adoptions) > 5)
        assert group.transport.paused == {A, B}
        assert set().union(*group.transport.polled) == set()
        assert (running.live(), running.ready(), running.degraded()) == ("ok", "ok", "degraded")
        group.settles.away = False

        await until(lambda: group.settles.ids(A) == ["a"])
        await until(lambda: running.degraded() == "ok")


async def test_a_claim_that_fails_is_not_repeated_at_once(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    delays: list[float] = []

    async def sleep(delay_s: float) -> None:
        delays.append(delay_s)
        group.settles.away = len(delays) < 8

    monkeypatch.setattr(adoption.Adopter.__init__, "__kwdefaults__", {"sleep": sleep})
    group.gives = [A]
    group.settles.away = True

    async with group.running():
        await until(lambda: A in group.settles.marks)

    assert all(0.005 * 2**n <= delay <= 0.01 * 2**n for n, delay in enumerate(delays))


async def test_records_come_from_where_it_was_sought_although_the_client_fetches_before(group: Group) -> None:
    """Kafka's own offset is behind; while the claim is out, records could flow from there."""
    group.kafka.add(A, "a", "b", "c")
    group.kafka.offsets = {A: 0, B: 0}
    group.settles.stored[A] = Adoption(2, "b")
    group.settles.claiming.clear()
    async with group.running():
        await until(lambda: len(group.settles.adoptions) == 2)
        await turns(group)
        group.settles.claiming.set()

        await until(lambda: group.settles.ids(A) == ["c"])


async def test_a_batch_whose_generation_moved_while_it_was_fetched_is_dropped(group: Group) -> None:
    group.gives = [A]
    async with group.running():
        await until(lambda: A in group.settles.marks)
        transport = group.transport
        taken = asyncio.Event()
        taking = transport._take

        def take_and_lose(asked: frozenset[Place]) -> dict[Place, list[ConsumedRecord]]:
            found = taking(asked)
            if found and not taken.is_set():
                taken.set()
                group.settles.claiming.clear()
                assert transport._rebalances is not None
                transport._rebalances.assigned(frozenset([A]))
            return found

        transport._take = take_and_lose  # type: ignore[method-assign]
        group.kafka.add(A, "a")
        await taken.wait()
        await turns(group)
        assert group.settles.ids(A) == []
        group.settles.claiming.set()

        await until(lambda: group.settles.ids(A) == ["a"])


async def test_a_claim_of_an_earlier_generation_does_not_count(group: Group) -> None:
    group.settles.claiming.clear()
    async with group.running():
        await until(lambda: len(group.settles.adoptions) == 2)
        await group.transport.rebalance([A])
        await until(lambda: len(group.settles.adoptions) == 3)
        group.settles.claiming.set()

        await until(lambda: A in group.settles.marks)
        await turns(group)
        assert B not in group.settles.marks

    generations = [generation for _, generation in group.settles.adoptions]
    assert sorted(set(generations)) == generations


async def test_a_partition_whose_fence_failed_is_claimed_again_under_a_new_generation(group: Group) -> None:
    group.gives = [A]
    async with group.running():
        await until(lambda: A in group.settles.marks)
        group.settles.overtaken.add(A)
        await until(lambda: not group.settles.overtaken)
        group.kafka.add(A, "a")
        await until(lambda: group.settles.ids(A) == ["a"])

    (_, first), (_, second) = group.settles.adoptions
    assert second > first
    assert group.settles.forgotten[0] == A


async def test_what_is_taken_without_a_word_is_forgotten_when_the_next_assignment_comes(group: Group) -> None:
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
        assert group.transport._rebalances is not None
        group.transport._assigned = frozenset([B])
        group.transport._rebalances.assigned(frozenset([B]))

        assert set(group.settles.forgotten) == {A, B}
        await until(lambda: set(group.settles.marks) == {B})


# Which partitions are polled


async def test_a_partition_without_room_is_left_out_and_none_with_room_means_none(group: Group) -> None:
    """For aiokafka no partition means every partition."""
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
        group.settles.full = {A}
        await turns(group)
        group.kafka.add(A, "a")
        group.kafka.add(B, "b")
        await until(lambda: group.settles.ids(B) == ["b"])
        group.settles.full = {A, B}
        await turns(group)
        group.kafka.add(B, "c")
        await turns(group)
        assert group.transport.polled[-1] == frozenset()
        assert (group.settles.ids(A), group.settles.ids(B)) == ([], ["b"])
        assert group.transport.paused == set()
        group.settles.full = set()

        await until(lambda: (group.settles.ids(A), group.settles.ids(B)) == (["a"], ["b", "c"]))


async def test_room_is_noticed_long_before_a_poll_without_records_ends(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
        group.settles.full = {A}
        group.kafka.add(A, "a")
        await turns(group)
        monkeypatch.setattr(membership, "POLL_S", 2 * HANG_S)
        await turns(group)
        group.settles.full = set()

        await until(lambda: group.settles.ids(A) == ["a"])
        monkeypatch.setattr(membership, "POLL_S", 0.02)
        group.kafka.add(B, "b")  # which ends the poll that is out


async def test_a_halted_partition_is_paused_polling_goes_on_and_later_it_is_resumed(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.settles.marks) == {A, B})
        group.settles.stopped_for_long = {A, B}
        await until(lambda: group.transport.paused == {A, B})
        await turns(group)
        assert (running.ready(), running.degraded()) == ("ok", "degraded")
        assert group.sample("consumer_paused_partitions") == 2
        group.kafka.add(A, "a")
        group.settles.stopped_for_long = set()

        await until(lambda: group.settles.ids(A) == ["a"])
        assert group.transport.paused == set()


# Commits


async def test_a_revoked_partition_is_drained_committed_and_forgotten_while_it_is_still_ours(group: Group) -> None:
    group.settles.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.settles.ids(A) == ["a"])

        await group.transport.rebalance([B])

        assert group.settles.drained == [frozenset(), frozenset([A, B])]
        assert group.kafka.offsets[A] == 1
        assert A not in group.settles.marks
        assert group.sample("consumer_rebalances_total", kind="revoked") == 1


async def test_nothing_is_committed_for_a_partition_after_it_was_revoked(group: Group) -> None:
    """The broker would accept it, and rewind the new owner."""
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 1, B: 0})
        await group.transport.rebalance([B])
        group.settles.marks[A] = 7
        group.transport._assigned |= {A}
        commits = len(group.kafka.commits)
        group.kafka.add(B, "b")

        await until(lambda: len(group.kafka.commits) > commits)

    assert group.kafka.offsets[A] == 1
    del group.settles.marks[A]


async def test_a_commit_that_waits_for_another_looks_at_the_marks_when_its_turn_comes(group: Group) -> None:
    """The periodic one is out when the partition is revoked: the last must not send what was true before the wait."""
    group.gives = [A]
    group.limits = Limits(look_s=HANG_S)
    async with group.running():
        await until(lambda: group.kafka.offsets == {A: 0})
        group.transport.answer_s = HANG_S
        group.kafka.go_away()
        group.settles.marks[A] = 1
        await until(lambda: group.kafka.waiting == 1)
        revoking = asyncio.create_task(group.transport.rebalance([]))
        await until(lambda: len(group.settles.drained) == 2)
        group.settles.marks[A] = 2
        group.kafka.come_back()
        await revoking

        assert group.kafka.commits == [{A: 0}, {A: 1}, {A: 2}]


async def test_offsets_never_go_back(group: Group) -> None:
    """A database that was restored is behind Kafka: others have seen the higher offset."""
    group.kafka.add(A, "a", "b", "c")
    group.kafka.offsets = {A: 2, B: 0}
    group.settles.stored[A] = Adoption(1, "a")
    group.settles.holding = True
    async with group.running():
        await until(lambda: group.settles.ids(A) == ["b", "c"])
        await turns(group)
        assert group.kafka.offsets[A] == 2
        group.settles.settle(A)

        await until(lambda: group.kafka.offsets[A] == 3)


async def test_a_failed_commit_is_made_good_by_the_next_and_told_once(group: Group) -> None:
    group.kafka.refuses = ["no_answer"] * 5
    group.kafka.add(A, "a")
    with capture_logs() as logs:
        async with group.running():
            await until(lambda: group.kafka.offsets == {A: 1, B: 0})

    assert [each["code"] for each in logs if each["event"] == "worker.commit_failed"] == ["no_answer"]


async def test_a_commit_that_is_refused_at_a_revoke_means_that_the_partitions_were_lost(group: Group) -> None:
    group.settles.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.settles.ids(A) == ["a"] and group.kafka.offsets == {A: 0, B: 0})
        group.kafka.refuses = ["not_member"]

        await group.transport.rebalance([B])

        assert group.sample("consumer_rebalances_total", kind="lost") == 1


# The client


async def test_it_starts_without_kafka_and_joins_when_it_is_there(group: Group) -> None:
    group.kafka.go_away()
    async with group.running() as running:
        await until(lambda: len(group.transports) > 2)
        assert (running.live(), running.ready(), running.degraded()) == ("ok", "joining", "degraded")
        group.kafka.come_back()

        await until(lambda: running.ready() == "ok")


async def test_a_client_that_fails_is_left_in_order_and_another_takes_over(group: Group) -> None:
    group.settles.holding = True
    group.kafka.add(A, "a")
    async with group.running():
        await until(lambda: group.settles.ids(A) == ["a"])
        group.transport.failure = "no_answer"
        await until(lambda: len(group.transports) == 2)

        assert group.transports[0].stopped
        assert frozenset([A, B]) in group.settles.drained
        assert group.kafka.offsets[A] == 1
        group.kafka.add(A, "b")
        await until(lambda: group.settles.ids(A) == ["a", "b"])


async def test_clients_that_fail_soon_are_replaced_ever_more_slowly(
    group: Group, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs the whole group a rebalance."""
    delays: list[float] = []

    def shortest(_: float, most: float) -> float:
        delays.append(most)
        return 0.0

    monkeypatch.setattr(subscriber, "RETRY_MAX_S", 0.08)
    monkeypatch.setattr("bridge.kafka.subscriber.random.uniform", shortest)
    async with group.running():
        while len(delays) < 5:
            await until(lambda: len(group.transports) > len(delays) and set(group.settles.marks) == {A, B})
            group.transport.failure = "no_answer"
            await until(lambda: group.transport.failure is None)
            await until(lambda: group.transports[len(delays) - 1].stopped)

    assert delays == [0.02, 0.04, 0.08, 0.08, 0.08]


async def test_questions_that_nobody_answers_for_long_have_the_client_rebuilt(group: Group) -> None:
    """It never looks for brokers that all have new addresses."""
    group.limits = Limits(look_s=0.01, silent_s=0.1)
    async with group.running() as running:
        await until(lambda: set(group.settles.marks) == {A, B})
        group.kafka.go_away()
        await until(lambda: running.degraded() == "degraded")
        await until(lambda: len(group.transports) > 2)
        group.kafka.come_back()

        await until(lambda: running.ready() == "ok")


async def test_an_outage_that_is_short_changes_nothing(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.settles.marks) == {A, B})
        group.kafka.go_away()
        await until(lambda: running.degraded() == "degraded")
        assert (running.live(), running.ready()) == ("ok", "ok")
        group.kafka.come_back()
        group.kafka.add(A, "a")

        await until(lambda: group.settles.ids(A) == ["a"] and running.degraded() == "ok")
        assert len(group.transports) == 1


async def test_a_join_that_never_ends_has_the_client_rebuilt(group: Group) -> None:
    group.limits = Limits(join_s=0.05)
    group.open = lambda: group.transports.append(NeverGiven(group.kafka)) or group.transport  # type: ignore[func-returns-value,method-assign]

    async with group.running():
        await until(lambda: len(group.transports) > 2)


class NeverGiven(FakeTransport):
    async def rebalance(self, places: Collection[Place]) -> None:  # type: ignore[override]
        """Leave the member waiting."""


async def test_a_cluster_that_refuses_is_asked_again_and_said(group: Group) -> None:
    async with group.running() as running:
        await until(lambda: set(group.settles.marks) == {A, B})
        taking = group.transport._take

        def refuse(asked: frozenset[Place]) -> dict[Place, list[ConsumedRecord]]:
            group.transport.failure = "refused"
            return taking(asked)

        group.transport._take = refuse  # type: ignore[method-assign]
        await until(lambda: running.ready() == "refused")
        assert running.live() == "ok"
        group.transport._take = taking  # type: ignore[method-assign]

        await until(lambda: running.ready() == "ok")
        assert len(group.transports) == 1


async def test_what_fails_in_the_listener_ends_the_process(group: Group) -> None:
    """The client swallows it."""

    async def fail(places: Collection[Place], *, timeout_s: float) -> None:
        del timeout_s
        if places:
            raise LookupError

    group.settles.drain = fail  # type: ignore[method-assign]
    ending = asyncio.create_task(group.run_to_its_end())
    await until(lambda: set(group.settles.marks) == {A, B})

    await group.transport.rebalance([A])

    with pytest.raises(LookupError):
        await ending


# Probes and metrics


async def test_it_is_ready_without_any_partition(group: Group) -> None:
    group.gives = []
    async with group.running() as running:
        await until(lambda: running.ready() == "ok")

        assert (running.live(), running.degraded()) == ("ok", "ok")
        assert group.sample("consumer_assigned_partitions") == 0


async def test_a_partition_that_settles_nothing_for_too_long_is_not_alive_unless_its_circuit_is_open(
    group: Group,
) -> None:
    group.limits = Limits(stuck_s=0.1)
    group.settles.holding = True
    group.kafka.add(A, "a")
    async with group.running() as running:
        await until(lambda: group.settles.ids(A) == ["a"])
        group.settles.stopped_for_long = {A}
        await asyncio.sleep(0.2)  # longer than the limit
        assert running.live() == "ok"
        group.settles.stopped_for_long = set()

        await until(lambda: running.live() == "partition_stuck")
        group.settles.settle(A)
        await until(lambda: running.live() == "ok")


async def test_a_poll_that_does_not_return_is_not_alive(group: Group) -> None:
    group.limits = Limits(poll_s=0.05)
    async with group.running() as running:
        await until(lambda: set(group.settles.marks) == {A, B})
        going_on = asyncio.Event()
        polling = group.transport.poll

        async def hang(places: Collection[Place], *, timeout_s: float) -> object:
            await going_on.wait()
            return await polling(places, timeout_s=timeout_s)

        group.transport.poll = hang  # type: ignore[method-assign,assignment]
        await until(lambda: running.live() == "poll_late")
        assert (group.sample("poll_age_seconds") or 0) > 0.05
        going_on.set()
        await until(lambda: running.live() == "ok")


async def test_lag_is_reported_per_partition_and_taken_away_with_it(group: Group) -> None:
    group.settles.holding = True
    group.kafka.add(A, "a", "b")
    async with group.running():
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 2)
        assert (group.sample("consumer_lag_seconds", topic="t", partition="0") or 0) > 1_000
        group.settles.settle(A)
        await until(lambda: group.sample("consumer_lag_records", topic="t", partition="0") == 0)
        assert group.sample("consumer_lag_seconds", topic="t", partition="0") == 0
        await group.transport.rebalance([B])

        assert group.sample("consumer_lag_records", topic="t", partition="0") is None
        await until(lambda: group.sample("consumer_assigned_partitions") == 1)
        assert (group.sample("commit_seconds_count") or 0) > 0


# The stop


async def test_a_stop_drains_commits_and_leaves(group: Group) -> None:
    group.settles.holding = True
    group.kafka.add(A, "a")
    async with group.running() as running:
        await until(lambda: group.settles.ids(A) == ["a"])

    assert running.ready() == "stopping"
    assert group.settles.drained[-1] == {A, B}
    assert group.kafka.offsets[A] == 1
    assert group.transport.stopped
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_nothing_is_polled_after_the_stop(group: Group) -> None:
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
    polls = len(group.transport.polled)
    group.kafka.add(A, "a")
    await asyncio.sleep(0)

    assert len(group.transport.polled) == polls
    assert group.settles.ids(A) == []


async def test_a_stop_is_bounded_when_a_drain_hangs(group: Group, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "CLOSE_S", 0.01)
    group.drain_s = 0.05
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
        group.settles.drain_hangs = True

    assert group.transport.stopped


async def test_a_stop_in_an_outage_ends(group: Group) -> None:
    async with group.running():
        await until(lambda: set(group.settles.marks) == {A, B})
        group.kafka.go_away()
        group.settles.marks[A] = 1

    assert group.transport.stopped
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_stop_while_joining_ends_at_once(group: Group) -> None:
    class Slow(FakeTransport):
        async def start(self, rebalances: object) -> None:
            del rebalances
            await asyncio.Event().wait()

    group.open = lambda: group.transports.append(Slow(group.kafka)) or group.transport  # type: ignore[func-returns-value,method-assign]
    async with group.running():
        await until(lambda: len(group.transports) == 1)

    assert group.transport.stopped


async def test_a_stop_during_a_claim_ends(group: Group) -> None:
    group.settles.claiming.clear()
    async with group.running():
        await until(lambda: len(group.settles.adoptions) == 2)

    assert asyncio.all_tasks() == {asyncio.current_task()}
