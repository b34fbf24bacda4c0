"""What became of each accepted record: told to its sender and to whoever remembers ids, and taken off the memory."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from prometheus_client import Counter

from bridge.event import Identity, Settled
from bridge.kafka.lane import Item
from bridge.runtime.logging import trail

log = structlog.get_logger()

Tell = Callable[[Identity, Settled], None]


class Accounts:
    """Counts what is in memory and settles it, each record once.

    Attributes:
        records: Records in memory: waiting, in flight, or on their way to the disk.
        bytes: Bytes of them.
    """

    def __init__(self, *, tell: Tell, late_acks: Counter) -> None:
        """Tell `tell` what became of each identity; `committed` may come after `spooled`."""
        self._tell = tell
        self._late_acks = late_acks
        self.records = 0
        self.bytes = 0

    def take(self, items: list[Item]) -> None:
        """Hold these in memory."""
        self.records += len(items)
        self.bytes += sum(item.size for item in items)

    def commit(self, item: Item) -> None:
        """All in-sync replicas have it, which may be after its sender got another answer."""
        if item.state != "open" or item.unwanted:
            self._late_acks.inc()
        if item.state == "open":
            item.state = "durable"
            item.ticket.count("committed")
            if not item.on_disk:
                self._leave(item)
        self._say(item, "committed")

    def spool(self, item: Item) -> None:
        """The disk has it."""
        item.on_disk = True
        if item.state == "open":
            item.state = "durable"
            item.ticket.count("spooled")
            self._say(item, "spooled")
            self._leave(item)

    def fail(self, item: Item, code: str) -> None:
        """It is not durable, and nothing more is done about it."""
        if item.state != "open":
            return
        item.state = "failed"
        item.ticket.fail(code)
        self._leave(item)
        self._say(item, "failed")

    def _say(self, item: Item, state: Settled) -> None:
        try:
            self._tell(item.accepted.identity, state)
        except Exception as exc:  # noqa: BLE001 - a memory with a bug must not leave the other items of a batch unsettled
            log.error("worker.failed", where=trail(exc))

    def _leave(self, item: Item) -> None:
        self.records -= 1
        self.bytes -= item.size
