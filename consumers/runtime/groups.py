"""View a consumer group from outside, running or not: members, offsets, first records; set or remove offsets."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, TypeVar

from aiokafka import AIOKafkaConsumer  # noqa: TID251 - this module wraps it
from aiokafka import TopicPartition as ClientPartition  # noqa: TID251 - as above
from aiokafka.admin import AIOKafkaAdminClient  # noqa: TID251 - as above
from aiokafka.errors import GroupIdNotFound, KafkaError, NonEmptyGroup, for_code  # noqa: TID251 - as above
from aiokafka.protocol.admin import DeleteGroupsRequest  # noqa: TID251 - as above

from bridge.errors import ConfigError
from bridge.kafka.connection import BUGS, CLIENT_FAILURES, KafkaConnection, reachable
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.fetch_buffer import FetchBuffer, UnreadableBatchError
from bridge.kafka.producer import METADATA_MAX_AGE_MS, REQUEST_TIMEOUT_MS, end_client
from bridge.kafka.reader import ReadError, end_consumer, no_session, partitions_of
from bridge.runtime.findings import counted
from consumers.runtime.transport import Bounds

_Response = TypeVar("_Response")

# Seconds for the whole view; each request has its own timeout.
GROUPS_S = 60.0
# Seconds to read the first record of each partition.
RECORDS_S = 15.0
POLL_S = 0.5
# Seconds between two requests to a coordinator that is being created or moved.
AGAIN_S = 0.2

# States of a group without members; `Dead` is also the state of a group that does not exist.
_WITHOUT_MEMBERS = {"Empty", "Dead"}


class GroupState(NamedTuple):
    """State as Kafka names it, and the number of members."""

    state: str
    members: int

    @property
    def live(self) -> bool:
        """True while a process is a member or is joining."""
        return self.state not in _WITHOUT_MEMBERS


@asynccontextmanager
async def open_group(connection: KafkaConnection, group: str, topics: Sequence[str]) -> "AsyncIterator[GroupView]":
    """View `group` on `topics` without joining it, for at most `GROUPS_S`; raises `ConfigError` or `ReadError`."""
    options = connection.options()
    options["bootstrap_servers"] = await reachable(connection.servers)
    if not options["bootstrap_servers"]:
        raise ReadError("unreachable", f"no broker answers at {connection.bootstrap_servers}")
    options |= {"client_id": "drx-bridge-groups", "request_timeout_ms": REQUEST_TIMEOUT_MS}
    async with AsyncExitStack() as stack:
        admin = AIOKafkaAdminClient(**options)
        stack.push_async_callback(end_client, admin._client)  # noqa: SLF001 - `close()` may hang
        consumer = AIOKafkaConsumer(
            **options,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="none",  # other policies skip or repeat silently
            isolation_level="read_committed",  # as for the members
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
        )
        stack.push_async_callback(end_consumer, consumer)
        try:
            async with asyncio.timeout(GROUPS_S):
                await _log_in(admin, consumer, connection=connection, options=options)
                await consumer._client.force_metadata_update()  # noqa: SLF001 - the bootstrap response contains no topics
                tps = partitions_of(consumer, topics)
                consumer.assign(tps)
                yield GroupView(consumer, admin, group, [TopicPartition(*tp) for tp in tps])
        except BUGS:
            raise
        except CLIENT_FAILURES as exc:
            message = f"{connection.bootstrap_servers} accepts connections but does not respond; TLS, SASL or ACL?"
            raise ReadError("no_answer", message) from exc


async def _log_in(*clients: Any, connection: KafkaConnection, options: Mapping[str, Any]) -> None:
    try:
        for each in clients:
            await each.start()
    except BUGS:
        raise
    except CLIENT_FAILURES as exc:
        raise no_session(connection, options) from exc


class GroupView:
    """State and offsets of one group, without joining it."""

    def __init__(self, consumer: Any, admin: Any, group: str, tps: Sequence[TopicPartition]) -> None:
        """The clients are started; the consumer is assigned `tps` and is not a member."""
        self.unreadable: dict[TopicPartition, int] = {}  # offsets of batches that `first_records` could not read
        self._consumer = consumer
        self._fetch_buffer = FetchBuffer(consumer)
        self._admin = admin
        self._group = group
        self.tps = tps  # all partitions of its topics

    async def cluster_id(self) -> str:
        """Return the id of the Kafka cluster."""
        return str((await self._admin.describe_cluster())["cluster_id"])

    async def state(self) -> GroupState:
        """Return the state of the group; waits for a coordinator that is being created."""
        return await self._until_response(self._state)

    async def refuse_members(self, *, session_s: float) -> None:
        """Raise `ConfigError` if the group has a member, or had one that was killed less than `session_s` ago."""
        state = await self.state()
        if state.live:
            raise ConfigError(
                f"group {self._group} has {counted(state.members, 'member')}: stop each first; one that was killed"
                f" counts for another {session_s:g} s"
            )

    async def _until_response(self, ask: Callable[[], Awaitable[_Response]]) -> _Response:
        while True:
            try:
                return await ask()
            except KafkaError as exc:
                # The first group of a cluster waits until the offsets topic exists; the view's timeout bounds this.
                if not exc.retriable:
                    raise
            await asyncio.sleep(AGAIN_S)

    async def _state(self) -> GroupState:
        (answer,) = await self._admin.describe_consumer_groups([self._group])
        (group,) = answer.groups
        error_code, _, state, _, _, members, *_ = group
        if error_code:
            raise for_code(error_code)
        return GroupState(state, len(members))

    async def bounds(self) -> dict[TopicPartition, Bounds]:
        """Return the start and end offsets of the logs."""
        asked = list(map(_partition, self.tps))
        starts = await self._consumer.beginning_offsets(asked)
        ends = await self._consumer.end_offsets(asked)
        return {tp: Bounds(starts[tp], ends[tp]) for tp in self.tps}

    async def committed(self) -> dict[TopicPartition, int | None]:
        """Return the group's offsets in Kafka; None for a partition without one."""
        return {tp: await self._consumer.committed(_partition(tp)) for tp in self.tps}

    async def offsets_at(self, timestamp_ms: int) -> dict[TopicPartition, int | None]:
        """Return the first offset with a record of that time or later; None for a partition without one."""
        asked = {_partition(tp): max(0, timestamp_ms) for tp in self.tps}  # no record is older
        found = await self._consumer.offsets_for_times(asked)
        return {TopicPartition(*tp): None if at is None else int(at.offset) for tp, at in found.items()}

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        """Commit offsets; Kafka refuses this while the group has members."""
        await self._consumer.commit({_partition(tp): offset for tp, offset in offsets.items()})

    async def forget(self) -> None:
        """Remove the group with its offsets, if it exists; `ConfigError` while it has members."""
        await self._until_response(self._delete)

    async def _delete(self) -> None:
        coordinator = await self._admin.find_coordinator(self._group)
        # aiokafka has no method for it.
        answer = await self._admin._send_request(DeleteGroupsRequest([self._group]), coordinator)  # noqa: SLF001
        ((_, error_code),) = answer.results
        if error_code == NonEmptyGroup.errno:
            raise ConfigError(f"group {self._group} has members: stop them first")
        if error_code not in {0, GroupIdNotFound.errno}:
            raise for_code(error_code)

    async def first_records(self, offsets: Mapping[TopicPartition, int]) -> dict[TopicPartition, ConsumedRecord | None]:
        """Return the first record at or after each offset; None if there is none up to the end of the log.

        A partition is missing if its record did not arrive within `RECORDS_S`, or is in an unreadable batch (see
        `unreadable`).
        """
        found: dict[TopicPartition, ConsumedRecord | None] = {}
        for tp, offset in offsets.items():
            self._consumer.seek(_partition(tp), offset)
        ends = await self.bounds()
        deadline = asyncio.get_running_loop().time() + RECORDS_S
        while left := [tp for tp in offsets if tp not in found and tp not in self.unreadable]:
            if asyncio.get_running_loop().time() > deadline:
                break
            found |= await self._first(left)
            for tp in left:
                # Only transaction markers and aborted records may be left.
                if tp not in found and await self._consumer.position(_partition(tp)) >= ends[tp].end:
                    found[tp] = None
        return found

    async def _first(self, tps: Collection[TopicPartition]) -> dict[TopicPartition, ConsumedRecord]:
        try:
            fetched = await self._fetch_buffer.take(tps)
            if not fetched:
                await self._fetch_buffer.news(POLL_S)
                fetched = await self._fetch_buffer.take(tps)
        except UnreadableBatchError as exc:
            self.unreadable[exc.tp] = exc.offset
            return {}
        return {tp: records[0] for tp, records in fetched.items()}


def _partition(tp: TopicPartition) -> Any:
    return ClientPartition(*tp)
