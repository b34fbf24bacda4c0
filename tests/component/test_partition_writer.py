"""The partition writers with Kafka and a disk: each covers for the other, and order is kept."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from inspect import iscoroutinefunction
from itertools import count
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry, Counter

from bridge.errors import NotDurableError, RecordRefusedError
from bridge.event import Durable
from bridge.kafka import partition_writer
from bridge.kafka.accepted import Accepted, from_entry
from bridge.kafka.known_ids_reader import KnownIdsReader
from bridge.kafka.partition_writer import BATCH_MAX, OVERHEAD_BYTES, SWEEP_S, PartitionWriters, WriterLimits
from bridge.kafka.record import Record
from bridge.spool.segment import Entry, UnreadableEntryError
from bridge.spool.store import NoSpool
from tests.builders import identity_in
from tests.fakes import FakeKnownIds, FakeProducer, FakeSpool
from tests.logs import capture_logs
from tests.waiting import HANG_S, until

TOPIC = "drx.prescriptions.v1"
PLACE = (TOPIC, 0)
# Never reached unless a test is about the time.
LONG_S = 60.0
pytestmark = pytest.mark.virtual_time


def accepted(event_id: str, ordinal: int = 0, *, partition: int = 0) -> Accepted:
    headers = [("ce_source", b"drx"), ("ce_id", event_id.encode()), ("drx_body_sha256", b"00" * 32)]
    record = Record(TOPIC, partition, b"rx_1", bytes(OVERHEAD_BYTES), headers, 1_772_366_400_000)
    return Accepted(record, identity_in(record), ordinal)


class Subject:
    def __init__(
        self,
        *,
        spool_after_s: float = LONG_S,
        deadline_s: float = LONG_S,
        set_aside_after_s: float = LONG_S,
        spool: FakeSpool | None = None,
        known_ids: FakeKnownIds | None = None,
    ) -> None:
        self.followed: list[str] = []
        self.caught_up: list[tuple[str, int]] = []
        self.producer = FakeProducer({TOPIC: 12})
        self.spool = spool or FakeSpool()
        self.known_ids = FakeKnownIds() if known_ids is None else known_ids  # an empty one is false
        self.late = Counter("late", "late", registry=CollectorRegistry())
        self.writers = PartitionWriters(
            producer=self.producer,
            spool=self.spool,
            known_ids=self.known_ids,
            late_acks=self.late,
            limits=WriterLimits(deadline_s, spool_after_s, set_aside_after_s),
            known_ids_reader=cast("KnownIdsReader", self),
        )

    def follow(self, topic: str) -> None:
        self.followed.append(topic)

    async def catch_up(self, topic: str, partition: int) -> None:
        """Note it, and have another replica's records known only now."""
        await asyncio.sleep(0)
        self.caught_up.append((topic, partition))
        self.known_ids.committed.add("elsewhere")

    def send(self, *ids: str, partition: int = 0) -> list[asyncio.Future[Durable]]:
        return [self.writers.enqueue([accepted(each, n, partition=partition)]) for n, each in enumerate(ids)]

    async def send_in_outage(self, *ids: str) -> None:
        """Have events spooled; Kafka stays away."""
        self.producer.connected = False
        assert await asyncio.gather(*self.send(*ids)) == ["spooled"] * len(ids)

    async def send_in_flight(self, *ids: str) -> list[asyncio.Future[Durable]]:
        """Have events on their way to Kafka, which does not answer until it flows."""
        self.producer.hold()
        sent = self.send(*ids)
        await self.producer.wait_for_write()
        return sent

    async def lose_write(self) -> None:
        """Have the write in flight fail; Kafka works then."""
        self.producer.failure = "outcome_unknown"
        self.producer.flow()
        await asyncio.wait(self.producer._in_flight)
        self.producer.failure = None

    def resume_disk(self) -> None:
        self.spool.code = ""
        self.spool.flow()

    @property
    def written(self) -> list[str]:
        return [identity_in(record).id for record in self.producer.records]

    @property
    def kept(self) -> list[str]:
        return [from_entry(each).identity.id for each in self.spool.kept[PLACE]]


@pytest.fixture
async def subject() -> AsyncIterator[Subject]:
    made = Subject()
    yield made
    made.producer.flow()
    await made.writers.close(1)


@pytest.fixture
def hasty(subject: Subject) -> Subject:
    """Kafka has its chance for 50 ms."""
    subject.writers.limits = replace(subject.writers.limits, spool_after_s=0.05)
    return subject


async def test_what_is_in_memory_when_kafka_goes_away_is_spooled_before_what_comes(subject: Subject) -> None:
    sent = await subject.send_in_flight("a")
    sent += subject.send("b")
    subject.producer.connected = False
    sent += subject.send("c")

    assert await asyncio.gather(*sent) == ["spooled"] * 3
    assert subject.kept == ["a", "b", "c"]


async def test_a_late_ack_is_taken_off_the_disk_and_not_written_again(hasty: Subject) -> None:
    first = await hasty.send_in_flight("a")
    await asyncio.gather(*first, *hasty.send("b"))

    hasty.producer.flow()
    await until(lambda: not hasty.spool.entries)

    assert hasty.written == ["a", "b"]
    assert hasty.known_ids.told == [("a", "spooled"), ("b", "spooled"), ("a", "committed"), ("b", "committed")]
    assert (hasty.late._value.get(), hasty.writers.records) == (1, 0)


async def test_the_end_of_a_drain_is_logged_once_with_the_number_of_records(subject: Subject) -> None:
    await subject.send_in_outage("a", "b")
    assert await asyncio.gather(*subject.send("c", partition=1)) == ["spooled"]

    with capture_logs() as lines:
        subject.producer.connected = True
        await until(lambda: not subject.writers.spooling)
        await subject.send_in_outage("d")
        subject.producer.connected = True
        await until(lambda: not subject.writers.spooling)

    assert [(each["event"], each["records"]) for each in lines] == [("worker.spool_drained", n) for n in (3, 1)]


async def test_each_drain_first_looks_at_what_others_have_written(subject: Subject) -> None:
    for ids in (["elsewhere", "a"], ["b"]):
        await subject.send_in_outage(*ids)
        subject.producer.connected = True
        await until(lambda: not subject.writers.spooling)

    find(subject, "c")
    await asyncio.sleep(0)  # it looks, perhaps too early for what is found now
    find(subject, "d")
    await until(lambda: not subject.writers.spooling)

    assert (subject.written, subject.caught_up) == (["a", "b", "c", "d"], [PLACE] * 4)


async def test_until_the_topics_were_read_the_disk_takes_what_may_be_a_repeat(subject: Subject) -> None:
    subject.known_ids.finished = False
    assert await asyncio.gather(*subject.send("a", "b")) == ["spooled"] * 2
    await asyncio.sleep(1)
    assert not subject.written

    subject.known_ids.committed.add("a")
    subject.known_ids.finished = True
    await until(lambda: not subject.writers.spooling)

    assert await asyncio.gather(*subject.send("c")) == ["committed"]
    assert subject.written == ["b", "c"]


@pytest.mark.parametrize("known", [set(), {"a"}, {"b"}, {"c"}, {"a", "c"}, {"a", "b", "c"}, {"b", "c", "d"}])
async def test_what_is_in_its_topic_already_is_not_drained_again(subject: Subject, known: set[str]) -> None:
    """Once damage is found, a repeat of what waits is taken again, perhaps with another body."""
    await subject.send_in_outage("a", "b", "a", "c", "d")
    subject.known_ids.committed = set(known)

    subject.producer.connected = True
    await until(lambda: not subject.spool.entries)

    assert subject.written == [each for each in "abcd" if each not in known]
    assert subject.writers.drained == 5


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("conflicts", [{"a"}, {"b"}, {"a", "b"}, {"a", "b", "c"}])
async def test_what_is_in_its_topic_with_another_body_is_set_aside_or_else_written(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, conflicts: set[str], *, fails: bool
) -> None:
    """It was accepted before the topic was read; its sender has a 202, and every consumer would park it."""
    if fails:
        monkeypatch.setattr(subject.spool, "set_aside", NoSpool().set_aside)
    subject.known_ids.committed.add("d")
    await subject.send_in_outage("a", "b", "c", "d", "e")
    subject.known_ids.others |= conflicts

    subject.producer.connected = True
    await until(lambda: not subject.spool.entries)

    assert [from_entry(each).identity.id for each in subject.spool.aside] == sorted(conflicts) * (not fails)
    assert subject.written == sorted({"a", "b", "c", "e"} - (set() if fails else conflicts))


async def test_under_a_steady_stream_a_partition_still_leaves_spooling(subject: Subject) -> None:
    await subject.send_in_outage(*[f"e{n}" for n in range(1200)])
    subject.producer.connected = True
    sent: list[asyncio.Future[Durable]] = []

    async with asyncio.timeout(HANG_S):
        while subject.writers.spooling:
            sent += subject.send(f"n{len(sent)}")
            await asyncio.sleep(0.001)
    await asyncio.gather(*sent)
    await until(lambda: not subject.spool.entries)

    assert subject.written == [f"e{n}" for n in range(1200)] + [f"n{n}" for n in range(len(sent))]
    assert subject.caught_up == [PLACE]


async def test_a_drain_with_much_left_keeps_what_comes_on_disk_and_not_in_memory(subject: Subject) -> None:
    subject.producer.batch_max = 100
    await subject.send_in_outage(*[f"e{n}" for n in range(2 * BATCH_MAX + 101)])
    subject.producer.hold()
    subject.producer.connected = True
    await subject.producer.wait_for_write()
    subject.spool.unreadable = True
    subject.producer.flow()
    await until(lambda: len(subject.written) == 100)

    (sent,) = subject.send("newest")
    assert await sent == "spooled"
    assert subject.kept[-1] == "newest"


async def test_the_rest_of_a_batch_that_was_written_in_part_goes_before_what_came_meanwhile(subject: Subject) -> None:
    subject.producer.batch_max = 2
    sent = await subject.send_in_flight("a", "b", "c", "d", "e")
    sent += subject.send("f")
    subject.producer.flow()
    await asyncio.gather(*sent)

    assert subject.written == ["a", "b", "c", "d", "e", "f"]


@pytest.mark.parametrize("later", ["cd", ""])
async def test_a_record_that_kafka_refuses_for_good_is_set_aside_and_the_others_pass(later: str) -> None:
    subject = Subject(set_aside_after_s=4.0)
    subject.producer.too_large = lambda record: dict(record.headers)["ce_id"] in {b"b", b"c"}
    subject.producer.connected = bool(later)  # else the spool drains both in one batch
    sent = subject.send("a", "b")
    await asyncio.sleep(0)  # they are in flight
    await asyncio.gather(*sent, *subject.send(*later))
    subject.producer.connected = True
    await until(lambda: subject.writers.blocked)
    assert subject.kept == ["b", *later]
    blocked_at = asyncio.get_running_loop().time()

    await until(lambda: not subject.spool.entries)

    assert asyncio.get_running_loop().time() - blocked_at > 3.5 * len(subject.spool.aside)
    assert subject.written == ["a", *later[1:]]
    assert [from_entry(each).identity.id for each in subject.spool.aside] == ["b", *later[:1]]
    assert not subject.writers.blocked
    await asyncio.gather(*subject.send("e", "f", "g", "h", "i"))
    assert subject.producer.batches[-1] > 1
    await subject.writers.close(1)


async def test_a_record_is_not_set_aside_for_what_kafka_refused_before_another_code() -> None:
    subject, loop = Subject(set_aside_after_s=20.0), asyncio.get_running_loop()
    subject.producer.failure = "topic_missing"
    await asyncio.gather(*subject.send("a"))
    await asyncio.sleep(30)

    subject.producer.too_large, subject.producer.failure, changed_at = lambda _: True, None, loop.time()
    await until(lambda: subject.spool.aside)
    assert loop.time() - changed_at >= 20.0
    await subject.writers.close(1)


@pytest.mark.parametrize("fault", ["topic_missing", "not_authorized", "clock"])
async def test_what_is_no_fault_of_the_record_never_sets_it_aside(fault: str) -> None:
    subject = Subject(set_aside_after_s=0.0)

    def then_unreadable(_: Record) -> bool:
        subject.spool.unreadable = True
        return False

    subject.producer.refusal = RecordRefusedError("record_refused", for_good=False)
    subject.producer.too_large = lambda _: fault == "clock"
    subject.producer.failure = None if fault == "clock" else fault
    subject.spool.peek_max = 1
    await asyncio.gather(*subject.send("a", "b"))
    await until(lambda: subject.writers.blocked)
    await asyncio.sleep(0.4)  # more than one attempt

    subject.producer.failure = None
    subject.producer.too_large = then_unreadable
    await until(lambda: subject.kept == ["b"])
    await asyncio.sleep(0)
    assert (subject.written, subject.spool.aside, subject.writers.blocked) == (["a"], [], 0)
    subject.spool.unreadable = False
    await until(lambda: not subject.spool.entries)
    await subject.writers.close(1)


async def test_a_full_disk_refuses_what_would_overtake(subject: Subject) -> None:
    await subject.send_in_outage("a")
    subject.known_ids.finished = False
    subject.producer.connected = True
    subject.spool.code = "full"

    with pytest.raises(NotDurableError, match="spool_full"):
        subject.send("b")
    assert await asyncio.gather(*subject.send("c", partition=1)) == ["committed"]


@pytest.mark.parametrize("full", [True, False], ids=["it was full", "it failed"])
async def test_a_disk_is_offered_again_what_kafka_does_not_answer(hasty: Subject, *, full: bool) -> None:
    hasty.producer.hold()
    hasty.spool.code, hasty.spool.failure = ("full", None) if full else ("", "io_error")
    (sent,) = hasty.send("a")
    if full:
        await hasty.producer.wait_for_write()
        await asyncio.sleep(5 * SWEEP_S)
        assert not hasty.writers.spooling
    else:
        await until(lambda: hasty.spool.refused)

    hasty.spool.code, hasty.spool.failure = "", None

    assert await sent == "spooled"
    assert await asyncio.gather(*hasty.send("b")) == ["spooled"]
    assert hasty.kept == ["a", "b"]


async def test_when_the_disk_fails_an_answer_of_kafka_still_counts(hasty: Subject) -> None:
    hasty.producer.hold()
    hasty.spool.failure = "full"
    (sent,) = hasty.send("a")
    await until(lambda: hasty.spool.refused)

    hasty.producer.flow()

    assert await sent == "committed"
    assert hasty.known_ids.told == [("a", "committed")]


async def test_a_partition_is_not_spooled_because_another_one_waits(hasty: Subject) -> None:
    hasty.producer.topics[TOPIC] = 2
    hasty.producer.hold()
    hasty.spool.hold()
    waiting = hasty.writers.enqueue([accepted("a", partition=1), accepted("b", 1, partition=2)])
    await until(lambda: hasty.writers.spooling == 2)
    hasty.producer.flow()
    await until(lambda: hasty.writers.spooling == 1)
    assert await asyncio.gather(*hasty.send("c")) == ["committed"]
    await asyncio.sleep(0.7 * SWEEP_S)
    (sent,) = await hasty.send_in_flight("d")
    await asyncio.sleep(0.4 * SWEEP_S)

    assert hasty.writers.spooling == 1
    hasty.spool.flow()
    hasty.producer.flow()
    assert (await waiting, await sent) == ("spooled", "committed")


async def hung(*, deadline_s: float = LONG_S) -> tuple[Subject, asyncio.Future[Durable]]:
    """An outage that was long enough for one delivery to be on its way to a disk that hangs."""
    subject = Subject(spool_after_s=0.05, deadline_s=deadline_s)
    subject.producer.hold()
    subject.spool.hold()
    (sent,) = subject.send("a")
    await until(lambda: subject.writers.spooling)
    subject.spool.code = "stalled"
    assert not sent.done()
    return subject, sent


@pytest.mark.parametrize("deadline_s", [LONG_S, 0.3], ids=["kafka has taken it", "its sender has been answered"])
async def test_a_partition_is_direct_again_beside_a_disk_that_hangs_when_nobody_waits_for_it(deadline_s: float) -> None:
    subject, sent = await hung(deadline_s=deadline_s)
    if deadline_s == LONG_S:
        subject.producer.flow()
        assert await sent == "committed"
    else:
        await subject.lose_write()
        with pytest.raises(NotDurableError, match="deadline"):
            await sent
    await until(lambda: not subject.writers.spooling)
    again = ["b"] if deadline_s == LONG_S else ["a", "b"]
    assert await asyncio.gather(*subject.send(*again)) == ["committed"] * len(again)

    subject.resume_disk()
    await until(lambda: not subject.spool.entries and not subject.writers.spooling)
    assert (subject.written, subject.writers.records) == (["a", "b"], 0)
    await subject.writers.close(1)


@pytest.mark.parametrize("failure", [None, "io_error"])
@pytest.mark.parametrize("lost_by", ["kafka", "a bug"])
async def test_a_partition_keeps_to_a_disk_that_hangs_while_somebody_waits_for_it(
    lost_by: str, failure: str | None
) -> None:
    subject, sent = await hung()
    if lost_by == "kafka":
        await subject.lose_write()
    subject.producer.too_large = lambda record: bool(record.no_such_member)  # type: ignore[attr-defined]
    subject.producer.flow()
    await asyncio.sleep(0.3)
    assert subject.writers.blocked == (lost_by == "a bug")
    subject.producer.too_large = lambda _: False

    with pytest.raises(NotDurableError, match="spool_unavailable"):
        subject.send("b")

    subject.spool.failure = failure
    subject.resume_disk()
    (outcome,) = await asyncio.gather(sent, return_exceptions=True)
    assert str(outcome) == ("spool_unavailable" if failure else "spooled")
    assert subject.known_ids.told == [("a", "failed" if failure else "spooled")]
    await until(lambda: not subject.writers.spooling)
    assert (subject.written, subject.writers.records) == ([] if failure else ["a"], 0)
    await subject.writers.close(1)


@pytest.mark.parametrize("turns", range(6))
async def test_a_record_that_the_disk_has_is_durable_in_whichever_turn_of_the_loop_that_is_seen(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Of the end of a call, the future is done before its callbacks have run."""
    subject, sent = await hung()
    monkeypatch.setattr(partition_writer, "CHECK_S", 0.0)  # in each turn it is asked whether the call has ended
    await subject.lose_write()
    for _ in range(turns):
        await asyncio.sleep(0)

    subject.resume_disk()

    assert await sent == "spooled"
    await subject.writers.close(1)


@pytest.fixture
def bare(subject: Subject) -> Subject:
    """Give writers without a disk; they do not wait for the topics to be read."""
    subject.spool.code, subject.known_ids.finished = "disabled", False
    return subject


@pytest.mark.parametrize("code", ["outcome_unknown", "unexpected"])
async def test_without_a_disk_a_write_that_fails_is_told_and_the_next_one_is_tried(bare: Subject, code: str) -> None:
    bare.producer.failure = None if code == "unexpected" else code
    bare.producer.too_large = lambda record: bool(record.no_such_member)  # type: ignore[attr-defined]
    with pytest.raises(NotDurableError, match=code):
        await bare.send("a")[0]

    bare.producer.failure, bare.producer.too_large = None, lambda _: False
    assert await asyncio.gather(*bare.send("b")) == ["committed"]


async def test_a_record_that_nobody_waits_for_any_more_is_not_written(bare: Subject) -> None:
    """Its sender was answered 503 and will come again; writing it too would only make a duplicate."""
    (first,) = await bare.send_in_flight("a")
    gone, last = bare.send("b", "c")

    gone.cancel()
    bare.producer.flow()
    await asyncio.gather(first, last)

    assert bare.written == ["a", "c"]


async def test_a_partition_that_does_not_answer_is_not_waited_for_again_and_its_late_record_stays(
    bare: Subject,
) -> None:
    """A record already handed over may still appear: it is unknown, not undone."""
    bare.writers.limits = WriterLimits(deadline_s=0.05)
    bare.producer.hold()
    with pytest.raises(NotDurableError, match="deadline"):
        await bare.send("a")[0]
    assert bare.known_ids.told == []

    with pytest.raises(NotDurableError, match="kafka_unavailable"):
        bare.send("b")

    bare.producer.flow()
    await until(lambda: bare.known_ids.told)
    assert (bare.written, bare.known_ids.told, bare.late._value.get()) == (["a"], [("a", "committed")], 1)


@pytest.mark.parametrize("limits", [WriterLimits(records_max=2), WriterLimits(bytes_max=2 * 2 * OVERHEAD_BYTES)])
async def test_the_queue_is_bounded_and_a_delivery_larger_than_it_is_taken_when_nothing_else_is(
    bare: Subject, limits: WriterLimits
) -> None:
    """Refused, it would be refused for ever: an order of Photon may have 10,080 fills."""
    bare.writers.limits, bare.producer.batch_max = limits, 2
    large = [accepted(f"d/{n}", n) for n in range(3)]
    bare.producer.hold()
    sent = bare.send("a")
    with pytest.raises(NotDurableError, match="queue_full"):
        bare.writers.enqueue(large)
    sent += bare.send("b")
    with pytest.raises(NotDurableError, match="queue_full"):
        bare.send("c")

    bare.producer.flow()
    await asyncio.gather(*sent)
    assert await bare.writers.enqueue(large) == "committed"
    assert bare.written == ["a", "b", "d/0", "d/1", "d/2"]


@pytest.mark.parametrize(("timeout_s", "answers"), [(30, True), (0, False)])
async def test_a_stop_takes_nothing_more_and_finishes_what_kafka_answers(
    bare: Subject, timeout_s: float, *, answers: bool
) -> None:
    sent = [*await bare.send_in_flight("a"), *bare.send("b")]
    closing = asyncio.ensure_future(bare.writers.close(timeout_s))
    await asyncio.sleep(0)

    with pytest.raises(NotDurableError, match="shutting_down"):
        bare.send("late")

    if answers:
        bare.producer.flow()
    *outcomes, _ = await asyncio.gather(*sent, closing, return_exceptions=True)
    assert list(map(str, outcomes)) == ["committed" if answers else "shutting_down"] * 2
    assert bare.written == ["a", "b"] * answers
    assert bare.producer.closed


@pytest.mark.parametrize("timeout_s", [0, partition_writer.RESCUE_S + partition_writer.PRODUCER_CLOSE_S, 30])
async def test_a_stop_in_an_outage_leaves_everything_on_disk_at_once(timeout_s: float) -> None:
    subject, loop = Subject(), asyncio.get_running_loop()
    first = await subject.send_in_flight("a")
    rest = subject.send("b", "c")
    subject.producer.connected = timeout_s < 30  # else Kafka may still answer, and is waited for
    started_at = loop.time()
    closing = asyncio.ensure_future(subject.writers.close(timeout_s))

    assert await asyncio.gather(*first, *rest) == ["spooled"] * 3
    assert loop.time() - started_at < 1
    await closing
    assert asyncio.all_tasks() == {asyncio.current_task()}
    assert subject.kept == ["a", "b", "c"]


async def test_a_stop_beside_a_slow_disk_leaves_nothing_twice() -> None:
    """What is on its way to the disk is not sent there again; the next process finds it in its topic."""
    subject, sent = await hung()
    subject.spool.code = ""

    closing = asyncio.ensure_future(subject.writers.close(5))
    for _ in range(20):  # turns of the loop, until the stop waits for the disk
        await asyncio.sleep(0)
    subject.spool.flow()
    subject.producer.flow()
    await closing

    assert await sent == "spooled"
    assert subject.written == subject.kept == ["a"]


@pytest.mark.parametrize("after_s", [9, LONG_S], ids=["kafka acknowledges in time", "neither"])
async def test_a_stop_beside_a_disk_that_hangs_leaves_kafka_its_time_and_keeps_its_own(after_s: float) -> None:
    subject, sent = await hung()
    loop = asyncio.get_running_loop()
    started_at = loop.time()
    loop.call_later(after_s, subject.producer.flow)

    await subject.writers.close(10)

    assert loop.time() - started_at < 11
    assert str(sent.exception()) == "shutting_down"
    assert subject.known_ids.told == [("a", "committed")] * (after_s < LONG_S)
    subject.resume_disk()


async def test_a_drain_that_fails_waits_longer_each_time_until_a_record_passes_and_a_stop_does_not_wait() -> None:
    subject = Subject()
    subject.spool.peek_max = 1
    await subject.send_in_outage("a", "b")
    subject.producer.connected, subject.producer.failure = True, "kafka_unavailable"
    await asyncio.sleep(60)
    tried = subject.producer._writing._value
    assert tried < 40

    subject.producer.refusal = RecordRefusedError("record_refused", for_good=False, size=4711)
    subject.producer.too_large = lambda record: dict(record.headers)["ce_id"] == b"b"
    subject.producer.failure = None
    with capture_logs() as lines:
        await until(lambda: subject.written == ["a"])
        await asyncio.sleep(1)
    assert [(line["code"], line["bytes"]) for line in lines] == [("record_refused", 4711)]
    assert subject.producer._writing._value > tried + 3

    async with asyncio.timeout(HANG_S):
        await subject.writers.close(1)
    assert (subject.kept, asyncio.all_tasks()) == (["b"], {asyncio.current_task()})


async def test_a_stop_ends_a_drain_that_waits_for_a_disk_that_hangs() -> None:
    subject = Subject()
    await subject.send_in_outage("a")
    peek = subject.spool.peek

    async def stopped_meanwhile(*args: Any, **given: Any) -> Any:
        subject.writers.stopping.set()
        await asyncio.sleep(HANG_S)
        return await peek(*args, **given)

    subject.spool.peek = stopped_meanwhile  # type: ignore[method-assign]  # of one instance
    subject.producer.connected = True
    await until(subject.writers.stopping.is_set)
    async with asyncio.timeout(HANG_S / 2):
        await subject.writers.close(1)

    assert (subject.written, subject.kept) == ([], ["a"])


async def test_what_an_earlier_process_left_on_disk_is_drained_before_anything_new(subject: Subject) -> None:
    await subject.send_in_outage("a", "b")
    later = Subject(spool=subject.spool)
    for entry in subject.spool.entries:
        later.writers.recovered(entry)

    assert await asyncio.gather(*later.send("c")) == ["spooled"]
    await until(lambda: not subject.spool.entries)

    assert (later.followed, later.written) == ([TOPIC], ["a", "b", "c"])
    assert later.known_ids.told[:2] == [("a", "spooled"), ("b", "spooled")]
    await later.writers.close(1)


@pytest.mark.parametrize("payload", [b"", b"\xff" + accepted("a").to_entry().payload])
async def test_what_no_version_of_ours_has_packed_leaves_a_partition_as_it_was(
    subject: Subject, payload: bytes
) -> None:
    with pytest.raises(UnreadableEntryError):
        subject.writers.recovered(Entry(0, 0, PLACE, payload))

    assert await asyncio.gather(*subject.send("b")) == ["committed"]
    assert subject.writers.spooling == 0


def find(subject: Subject, *ids: str) -> None:
    """Have the disk find what an earlier process left, as it does when it can be read at last."""
    for each in ids:
        entry = accepted(each).to_entry()
        subject.spool.kept[PLACE].append(entry)
        subject.writers.recovered(entry)


async def test_what_is_found_late_lets_nothing_overtake_what_is_on_its_way(subject: Subject) -> None:
    subject.producer.batch_max = 2
    sent = await subject.send_in_flight("a")
    sent += subject.send("b", "c", "d")

    find(subject, "old")
    sent += subject.send("e")
    subject.producer.flow()
    await until(lambda: not subject.spool.entries)

    assert [each for each in subject.written if each != "old"] == ["a", "b", "c", "d", "e"]
    assert await asyncio.gather(*sent) == ["committed"] + ["spooled"] * 4


async def test_what_waits_when_something_is_found_late_is_spooled_behind_it(subject: Subject) -> None:
    """Kafka may go away before it is written, and the disk has room."""
    in_flight = await subject.send_in_flight("a")
    waiting = subject.send("b", "c")
    find(subject, "old")

    subject.producer.connected, subject.producer.failure = False, "kafka_unavailable"
    subject.producer.flow()
    assert [type(each) for each in await asyncio.gather(*in_flight, return_exceptions=True)] == [NotDurableError]
    assert await asyncio.gather(*waiting, *subject.send("d")) == ["spooled"] * 3
    assert subject.kept == ["old", "b", "c", "d"]


async def test_what_waits_when_something_is_found_late_stays_in_memory_beside_a_full_disk(subject: Subject) -> None:
    sent = await subject.send_in_flight("a")
    sent += subject.send("b", "c")
    subject.spool.code = "full"
    find(subject, "old")
    subject.producer.flow()

    assert await asyncio.gather(*sent) == ["committed"] * 3
    await until(lambda: subject.written == ["a", "b", "c", "old"])


async def test_what_fails_beside_what_was_found_late_is_told_so_and_not_put_behind_newer(subject: Subject) -> None:
    sent = await subject.send_in_flight("a")
    find(subject, "old")
    assert await asyncio.gather(*subject.send("b")) == ["spooled"]

    subject.producer.failure = "kafka_unavailable"
    subject.producer.flow()
    assert [type(each) for each in await asyncio.gather(*sent, return_exceptions=True)] == [NotDurableError]
    subject.producer.failure = None
    await until(lambda: not subject.spool.entries)

    assert subject.written == ["old", "b"]


async def test_one_that_is_too_large_does_not_fail_others_beside_what_was_found_late(subject: Subject) -> None:
    subject.producer.too_large = lambda record: dict(record.headers)["ce_id"] == b"b"
    sent = await subject.send_in_flight("a", "b", "c")
    find(subject, "old")

    subject.producer.flow()
    outcomes = await asyncio.gather(*sent, return_exceptions=True)
    await until(lambda: not subject.spool.entries)

    assert list(map(str, outcomes)) == ["committed", "record_too_large", "committed"]
    assert subject.written == ["a", "c", "old"]


async def waiting_for_the_end_of_a_drain(subject: Subject) -> asyncio.Future[Durable]:
    subject.spool.peek_max = 1
    await subject.send_in_outage("a", "b", "c")
    subject.producer.hold()
    subject.producer.connected = True
    await subject.producer.wait_for_write()
    subject.spool.unreadable = True
    subject.producer.flow()
    await until(lambda: subject.written == ["a"] and subject.writers.spooling == 1)
    return subject.send("w")[0]


@pytest.mark.parametrize("fault", ["away", "failing", "slow"])
async def test_what_waits_for_the_end_of_a_drain_that_fails_is_spooled(subject: Subject, fault: str) -> None:
    if fault == "slow":
        subject.writers.limits = replace(subject.writers.limits, spool_after_s=0.05)
    waiting = await waiting_for_the_end_of_a_drain(subject)
    subject.producer.connected, subject.producer.failure = fault != "away", "kafka_unavailable"
    subject.spool.unreadable = fault == "slow"

    assert await waiting == "spooled"
    assert subject.kept == ["b", "c", "w"]


async def test_what_waits_for_the_end_of_a_drain_is_not_overtaken_when_more_is_found(subject: Subject) -> None:
    waiting = await waiting_for_the_end_of_a_drain(subject)
    find(subject, *[f"old{n}" for n in range(2 * BATCH_MAX)])
    subject.spool.unreadable = False
    await subject.producer.wait_for_write()
    await subject.producer.wait_for_write()
    (newer,) = subject.send("n")
    await asyncio.gather(waiting, newer)
    await until(lambda: not subject.spool.entries)

    assert subject.written.index("w") < subject.written.index("n")


async def test_a_drain_that_stands_still_beside_a_full_disk_keeps_no_memory_of_what_was_answered() -> None:
    """What waited for its end would fill the memory of the other partitions, too."""
    subject = Subject(deadline_s=0.05)
    subject.spool.peek_max = 1
    await subject.send_in_outage("a", "b")
    subject.spool.code = "full"
    subject.producer.too_large = lambda record: dict(record.headers)["ce_id"] == b"b"
    subject.producer.connected = True
    await until(lambda: subject.writers.blocked)

    for each, code in (("c", "deadline"), ("d", "deadline"), ("e", "kafka_unavailable")):
        subject.producer.connected = code == "deadline"
        with pytest.raises(NotDurableError, match=code):
            await subject.send(each)[0]

    await until(lambda: not (subject.writers.records or subject.writers.bytes))
    assert (subject.kept, subject.known_ids.told[-2:]) == (["b"], [("c", "failed"), ("d", "failed")])
    await subject.writers.close(1)


async def test_a_delivery_of_two_partitions_is_spooled_when_one_of_them_is(subject: Subject) -> None:
    await subject.send_in_outage("a")
    subject.spool.unreadable, subject.producer.connected = True, True

    assert await subject.writers.enqueue([accepted("b", 1), accepted("c", 2, partition=1)]) == "spooled"

    assert subject.known_ids.told[1:] == [("b", "spooled"), ("c", "committed")]


def raising(method: Callable[..., Any], exc: BaseException | type[BaseException], *, every: int) -> Callable[..., Any]:
    """Let each call of `every` calls raise, after a turn of the loop if it is a coroutine function."""
    calls = count(1)

    def call(*arguments: Any, **named: Any) -> Any:
        if next(calls) % every == 0:
            raise exc
        return method(*arguments, **named)

    async def call_later(*arguments: Any, **named: Any) -> Any:
        await asyncio.sleep(0)
        return await call(*arguments, **named)

    return call_later if iscoroutinefunction(method) else call


async def test_a_call_that_fails_on_the_disk_leaves_another_one_its_drain(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subject.spool, "append", raising(subject.spool.append, NotDurableError("io_error"), every=2))
    subject.producer.connected = False
    subject.spool.hold()
    first, second = subject.send("a", "b")
    with pytest.raises(NotDurableError, match="spool_unavailable"):
        await second
    subject.spool.flow()
    assert await first == "spooled"

    subject.producer.connected = True
    await until(lambda: subject.written == ["a"])


@pytest.mark.parametrize("exc", [TypeError, asyncio.CancelledError])
async def test_it_goes_on_after_whatever_is_raised_by_what_it_calls(
    monkeypatch: pytest.MonkeyPatch, exc: type[BaseException]
) -> None:
    monkeypatch.setattr(partition_writer, "FAULT_PAUSE_S", 0.01)
    monkeypatch.setattr(partition_writer, "RETRY_FIRST_S", 0.01)
    subject = Subject(spool_after_s=0.05, deadline_s=2.0, set_aside_after_s=0.0)
    for owner, name, every in (
        *((subject.producer, "write", 3), (subject, "catch_up", 2)),
        *((subject.spool, "append", 3), (subject.spool, "peek", 2), (subject.spool, "set_aside", 2)),
    ):
        monkeypatch.setattr(owner, name, raising(getattr(owner, name), exc, every=every))
    for name, every in (("settled", 2), ("in_topic", 97)):
        monkeypatch.setattr(subject.known_ids, name, raising(getattr(subject.known_ids, name), TypeError, every=every))
    promised = []

    async with asyncio.timeout(HANG_S):
        for number in range(40):
            subject.producer.connected = number % 4 < 2
            ids = [f"e{number}_{each}" for each in range(3)]
            with contextlib.suppress(NotDurableError):
                outcomes = await asyncio.gather(*subject.send(*ids), return_exceptions=True)
                promised += [each for each, outcome in zip(ids, outcomes, strict=True) if isinstance(outcome, str)]
        subject.producer.connected = True
        await until(lambda: not subject.spool.entries and not subject.writers.spooling)

    assert [each for each in dict.fromkeys(subject.written) if each in promised] == promised
    assert len(promised) > 40
    assert subject.writers.records == subject.writers.bytes == subject.writers.blocked == 0
    await subject.writers.close(1)
