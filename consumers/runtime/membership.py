"""What a member of a consumer group needs of a Kafka client; `transport` gives it, and so do the fakes of tests."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from bridge.errors import BridgeError
from bridge.kafka.transport import ConsumedRecord, Place


class Bounds(NamedTuple):
    """Offset of the first record that is still there, and the one after the last."""

    start: int
    end: int


class TransportError(BridgeError):
    """The client must be replaced; `code` is the reason.

    Codes: `offset_missing` (the group has no offset for a partition), `offset_out_of_range` (the log no longer, or
    not yet, has it), `batch_unreadable` (the next batch of a partition is corrupt), `refused` (ACL), `no_answer`,
    `handshake_failed` (a broker takes the connection and gives no session: TLS, or who we are), `no_token` (nor does
    the token endpoint give a token), `config` (a file of the connection cannot be used now), `not_member` (a commit by
    a member that lost the partition).
    """

    retriable = True

    def __init__(self, code: str, places: Iterable[Place] = (), *, offset: int | None = None) -> None:
        """Keep the constant `code`, the partitions at fault, and the `offset` that cannot be read."""
        super().__init__(code)
        self.code = code
        self.places = frozenset(places)
        self.offset = offset


class Rebalances(Protocol):
    """Hears of rebalances, in the client's own task: while `revoked` runs, the partitions are still ours."""

    async def revoked(self, places: frozenset[Place]) -> None:
        """Drain and commit; within the rebalance timeout."""

    def assigned(self, places: frozenset[Place]) -> None:
        """Note what is ours from now on; records may be polled before this returns, so nothing is sought here."""


class Transport(Protocol):
    """A member of a group; one task alone calls `poll`, `seek`, `pause` and `resume`, and is never cancelled there."""

    async def start(self, rebalances: Rebalances) -> None:
        """Join the group.

        Raises:
            TransportError: `no_answer`, `handshake_failed`, `no_token`, `config`.
        """

    async def poll(self, places: Collection[Place], *, timeout_s: float) -> Mapping[Place, Sequence[ConsumedRecord]]:
        """Return records of `places`, and of no other partition: of none at all when `places` is empty.

        Calling it, also with no place, is what keeps this member in the group.

        Raises:
            TransportError: `no_answer`, `offset_missing`, `offset_out_of_range`, `batch_unreadable`, `refused`.
        """

    def position(self, place: Place) -> int | None:
        """Return the next offset that will be read, past what no reader sees; None while that is not known."""

    def high_watermark(self, place: Place) -> int | None:
        """Return the end of the log as the last fetch saw it, also behind an open transaction; None before one."""

    def assigned(self) -> frozenset[Place]:
        """Return what the group has given to this member."""

    def seek(self, place: Place, offset: int) -> None:
        """Read `place` from `offset` on."""

    def pause(self, places: Collection[Place]) -> None:
        """Stop fetching; what was fetched and not polled is dropped and comes again."""

    def resume(self, places: Collection[Place]) -> None:
        """Undo `pause`."""

    async def commit(self, offsets: Mapping[Place, int]) -> None:
        """Keep the next offsets in the group, within a bound.

        Raises:
            TransportError: `not_member`, `no_answer`.
        """

    async def bounds(self, places: Collection[Place]) -> Mapping[Place, Bounds]:
        """Return where the logs start and end, for readers: an open transaction is an end.

        Raises:
            TransportError: `no_answer`.
        """

    def outdated(self) -> bool:
        """Whether another member would log in with other credentials, since their files were replaced."""

    async def stop(self) -> None:
        """Leave the group and close every connection, within a bound, also in an outage."""
