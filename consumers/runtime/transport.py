"""The aiokafka client of a group member: it returns records as bytes, and every wait has a time limit.

aiokafka 0.14 disables its max-poll check after an exception or a cancellation inside `getmany`, and reads all
partitions if none are given. It may never finish a commit, and leaves connections open if it is stopped in an outage.
So `getmany` is only called when it cannot wait, and private parts of aiokafka are used, for which its version is
pinned.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener  # noqa: TID251 - this module wraps it
from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - as above
from aiokafka import errors as kafka_errors  # noqa: TID251 - as above
from aiokafka.coordinator.assignors.sticky.sticky_assignor import (  # noqa: TID251 - as above
    StickyPartitionAssignor,
)
from aiokafka.structs import OffsetAndMetadata  # noqa: TID251 - as above

from bridge.errors import CodedError, ConfigError
from bridge.kafka.connection import CLIENT_FAILURES, KafkaConnection, reachable, refusal
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.fetch_buffer import POLL_RECORDS, FetchBuffer, UnreadableBatchError
from bridge.kafka.producer import METADATA_MAX_AGE_MS, START_S
from bridge.kafka.reader import end_consumer

FETCH_MAX_BYTES = 8 * 1024 * 1024
PARTITION_FETCH_MAX_BYTES = 1024 * 1024
# aiokafka has one fetch in flight per broker, and a partition that was just emptied waits for the next one.
FETCH_WAIT_MS = 100
# Milliseconds for a commit; other requests are as small.
ANSWER_S = 5.0
# The response to a join comes once all members have joined, so the request timeout must be longer than that.
JOIN_MARGIN_S = 5.0
# As in Kafka's own clients: a member may miss two heartbeats.
HEARTBEATS = 3
# Seconds; brokers learn of a new topic within a second, and a missing topic costs a request each time.
MISSING_TOPIC_S = 2.0

_CODES = {
    kafka_errors.NoOffsetForPartitionError: "offset_missing",
    kafka_errors.OffsetOutOfRangeError: "offset_out_of_range",
    kafka_errors.TopicAuthorizationFailedError: "refused",
    kafka_errors.GroupAuthorizationFailedError: "refused",
    kafka_errors.ClusterAuthorizationFailedError: "refused",
    kafka_errors.IllegalGenerationError: "not_member",
    kafka_errors.UnknownMemberIdError: "not_member",
    kafka_errors.RebalanceInProgressError: "not_member",
    kafka_errors.CommitFailedError: "not_member",
}


@dataclass(frozen=True, slots=True)
class Timing:
    """Timeouts of a group member, as Kafka defines them."""

    session_s: float = 45.0  # without a heartbeat for this long the broker removes a member
    rebalance_s: float = 90.0  # for a member to release its partitions and rejoin
    max_poll_s: float = 600.0  # without a poll for this long a member leaves the group


class Bounds(NamedTuple):
    """Offset of the first record in the log, and the one after the last."""

    start: int
    end: int


class TransportError(CodedError):
    """The client must be replaced; `code` is the reason.

    Codes:

    - `offset_missing`: the group has no offset for a partition.
    - `offset_out_of_range`: the log no longer has it, or does not have it yet.
    - `batch_unreadable`: the next batch of a partition is corrupt.
    - `refused`: by an ACL.
    - `no_answer`: the brokers do not respond.
    - `handshake_failed`: a broker accepts the connection, but TLS or authentication fails.
    - `no_token`: the token endpoint returned no token.
    - `config`: a file of the connection cannot be used now.
    - `not_member`: a commit by a member that lost the partition.
    """

    retriable = True

    def __init__(self, code: str, tps: Iterable[TopicPartition] = (), *, offset: int | None = None) -> None:
        """Keep the constant `code`, the affected partitions, and the unreadable `offset`."""
        super().__init__(code)
        self.tps = frozenset(tps)
        self.offset = offset


class Rebalances(Protocol):
    """Called at rebalances, in the client's own task. While `revoked` runs, the partitions are still ours."""

    async def revoked(self, tps: frozenset[TopicPartition]) -> None:
        """Drain and commit; within the rebalance timeout."""

    def assigned(self, tps: frozenset[TopicPartition]) -> None:
        """Note the newly assigned partitions; do not seek here, since records may be polled before this returns."""


class MissingTopics:
    """Refreshes a client's metadata while a topic is missing; aiokafka alone would wait for `metadata_max_age_ms`.

    The leader of a group assigns only topics in its own metadata, which may lack a topic that the broker it asked does
    not know yet.
    """

    def __init__(self, client: Any, topics: Sequence[str], *, now: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._topics = topics
        self._now = now
        self._look_at = now()

    def look(self) -> None:
        """Start a refresh if a topic is missing and the last one is long enough ago; cheap enough for every poll."""
        now = self._now()
        if now >= self._look_at:
            self._look_at = now + MISSING_TOPIC_S
            if not all(map(self._client.cluster.partitions_for_topic, self._topics)):
                self._client.force_metadata_update()


class GroupTransport:
    """A member of a group; only one task calls `poll`, `seek`, `pause` and `resume`, and is never cancelled there."""

    def __init__(
        self, connection: KafkaConnection, *, group: str, topics: Sequence[str], timing: Timing = Timing()
    ) -> None:
        """Join `group` for `topics` when started; can be started once."""
        self._connection = connection
        self._group = group
        self._topics = topics
        self._timing = timing
        self._consumer: Any = None
        self._fetch_buffer: FetchBuffer
        self._missing: MissingTopics
        self._ending: asyncio.Task[None] | None = None
        self._credentials = b""

    async def start(self, rebalances: Rebalances) -> None:
        """Join the group; `TransportError`: `no_answer`, `handshake_failed`, `no_token`, `config`."""
        self._credentials = self._connection.credentials()
        try:
            options = self._connection.options()
        except ConfigError as exc:  # all were valid when the process began: one is being replaced
            raise TransportError(exc.code) from exc
        options["bootstrap_servers"] = await reachable(self._connection.servers)
        if not options["bootstrap_servers"]:
            raise TransportError("no_answer")
        self._consumer = _build(options, group=self._group, timing=self._timing)
        self._fetch_buffer = FetchBuffer(self._consumer)
        try:
            async with _answered(START_S):
                # Without topics, so that it returns before the rebalance ends: others may take long to join.
                await self._consumer.start()
        except BaseException as exc:
            await self.stop()
            if isinstance(exc, Exception):  # aiokafka raises a `TypeError` for a malformed response
                raise TransportError(refusal(options).code) from exc
            raise
        self._consumer.subscribe(list(self._topics), listener=_Listener(rebalances))
        self._missing = MissingTopics(self._consumer._client, self._topics)  # noqa: SLF001 - the only refresher of metadata

    async def poll(
        self, tps: Collection[TopicPartition], *, timeout_s: float
    ) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        """Return records of `tps` only, even if empty; each call keeps this member in its group.

        Raises:
            TransportError: `no_answer`, `offset_missing`, `offset_out_of_range`, `batch_unreadable`, `refused`.
        """
        self._missing.look()
        found = await self._take(tps)
        if not found and timeout_s > 0:
            await self._fetch_buffer.news(timeout_s)
            found = await self._take(tps)
        return found

    async def _take(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, Sequence[ConsumedRecord]]:
        """Return fetched records without waiting, so that `getmany` cannot be cancelled."""
        subscription = self._consumer._subscription  # noqa: SLF001 - `getmany` waits for the group without a limit
        try:
            # If either task has ended, records never arrive, and aiokafka does not report it.
            tasks = self._consumer._fetcher._fetch_task, self._consumer._client._sync_task  # noqa: SLF001 - as above
            if any(task.done() for task in tasks):
                raise TransportError("no_answer")
            self._rejoin_if_dead()
            self._consumer._coordinator.check_errors()  # noqa: SLF001 - as `getmany` does
            with subscription.fetch_context():  # counts as a poll, which keeps a member in its group
                pass
            return {} if subscription.reassignment_in_progress else await self._fetch_buffer.take(tps)
        except UnreadableBatchError as exc:
            raise TransportError(exc.code, [exc.tp], offset=exc.offset) from exc
        except CLIENT_FAILURES as exc:
            raise _translated(exc) from exc

    def _rejoin_if_dead(self) -> None:
        """Rejoin if a heartbeat was refused: its task has ended, and each poll would report the same refusal."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 - as above
        tasks = (coordinator._heartbeat_task, coordinator._commit_refresh_task)  # noqa: SLF001 - as above
        if any(task is not None and task.done() and not task.cancelled() and task.exception() for task in tasks):
            coordinator.request_rejoin()

    def position(self, tp: TopicPartition) -> int | None:
        """Return the next offset to read, after records that readers do not see; None while unknown."""
        state = self._state(tp)
        return state.position if state is not None and state.has_valid_position else None

    def high_watermark(self, tp: TopicPartition) -> int | None:
        """Return the end of the log of the last fetch, including open transactions; None before the first."""
        state = self._state(tp)
        return None if state is None else state.highwater

    def _state(self, tp: TopicPartition) -> Any:
        partition = ClientPartition(*tp)
        if partition not in self._consumer.assignment():
            return None
        return self._consumer._subscription.subscription.assignment.state_value(partition)  # noqa: SLF001 - `position()` may wait

    def assigned(self) -> frozenset[TopicPartition]:
        """Return the partitions assigned to this member."""
        return frozenset(TopicPartition(*each) for each in self._consumer.assignment())

    def seek(self, tp: TopicPartition, offset: int) -> None:
        """Read `tp` from `offset` on."""
        for each in self._ours([tp]):
            self._consumer.seek(each, offset)

    def pause(self, tps: Collection[TopicPartition]) -> None:
        """Stop fetching; records fetched and not polled are dropped and fetched again."""
        self._consumer.pause(*self._ours(tps))

    def resume(self, tps: Collection[TopicPartition]) -> None:
        """Undo `pause`."""
        self._consumer.resume(*self._ours(tps))

    def _ours(self, tps: Collection[TopicPartition]) -> list[Any]:
        """Filter out partitions that a rebalance has just revoked; the listener reports them."""
        ours = self._consumer.assignment()
        return [ClientPartition(*tp) for tp in tps if tp in ours]

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit the next offsets, within a time limit; `TransportError`: `not_member`, `no_answer`."""
        coordinator = self._consumer._coordinator  # noqa: SLF001 - `commit()` waits first, and then sends stale offsets
        membership = (coordinator.generation, coordinator.member_id)
        async with _answered(ANSWER_S):
            await coordinator.ensure_coordinator_known()
            lost = offsets.keys() - self._consumer.assignment()
            # No await from here to the request: a partition revoked meanwhile would be rewound for its new owner.
            if lost or membership != (coordinator.generation, coordinator.member_id) or coordinator.generation < 0:
                raise TransportError("not_member", lost or offsets)
            await coordinator._do_commit_offsets(  # noqa: SLF001 - as above
                None, {ClientPartition(*tp): OffsetAndMetadata(offset, "") for tp, offset in offsets.items()}
            )

    async def bounds(self, tps: Collection[TopicPartition]) -> Mapping[TopicPartition, Bounds]:
        """Return start and end of the logs for readers, where an open transaction is the end; raises `no_answer`."""
        wanted = [ClientPartition(*tp) for tp in tps]
        async with _answered(ANSWER_S):
            starts = await self._consumer.beginning_offsets(wanted)
            ends = await self._consumer.end_offsets(wanted)
        return {tp: Bounds(starts[tp], ends[tp]) for tp in tps}

    def outdated(self) -> bool:
        """Return whether the credential files were replaced, so that a new member would use others."""
        return self._connection.credentials() != self._credentials

    async def stop(self) -> None:
        """Leave the group and close every connection, within a time limit, even in an outage."""
        if self._consumer is None:
            return
        if self._ending is None:
            self._ending = asyncio.create_task(end_consumer(self._consumer))
        await asyncio.shield(self._ending)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    def __init__(self, rebalances: Rebalances) -> None:
        self._rebalances = rebalances

    async def on_partitions_revoked(self, revoked: Iterable[Any]) -> None:
        await self._rebalances.revoked(frozenset(TopicPartition(*each) for each in revoked))

    def on_partitions_assigned(self, assigned: Iterable[Any]) -> None:
        self._rebalances.assigned(frozenset(TopicPartition(*each) for each in assigned))


def _build(options: dict[str, Any], *, group: str, timing: Timing) -> Any:
    return AIOKafkaConsumer(
        **options,
        client_id="drx-consumer",
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="none",  # other policies skip or repeat silently
        isolation_level="read_committed",  # aborted records are not returned
        # aiokafka keeps the assignment in the class, where the next client of this process must not find it.
        partition_assignment_strategy=[type("Sticky", (StickyPartitionAssignor,), {})],
        session_timeout_ms=_ms(timing.session_s),
        heartbeat_interval_ms=_ms(min(3.0, timing.session_s / HEARTBEATS)),
        rebalance_timeout_ms=_ms(timing.rebalance_s),
        max_poll_interval_ms=_ms(timing.max_poll_s),
        request_timeout_ms=_ms(timing.rebalance_s + JOIN_MARGIN_S),
        metadata_max_age_ms=METADATA_MAX_AGE_MS,
        fetch_max_bytes=FETCH_MAX_BYTES,
        max_partition_fetch_bytes=PARTITION_FETCH_MAX_BYTES,
        fetch_max_wait_ms=FETCH_WAIT_MS,
        max_poll_records=POLL_RECORDS,
    )


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


@asynccontextmanager
async def _answered(timeout_s: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except CLIENT_FAILURES as exc:
        raise _translated(exc) from exc


def _translated(exc: Exception) -> TransportError:
    tps = exc.args[0] if exc.args and isinstance(exc, kafka_errors.OffsetOutOfRangeError) else ()
    if exc.args and isinstance(exc, kafka_errors.NoOffsetForPartitionError):
        tps = exc.args[:1]
    return TransportError(_CODES.get(type(exc), "no_answer"), [TopicPartition(*tp) for tp in tps])
