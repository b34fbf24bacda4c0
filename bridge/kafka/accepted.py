"""A record that was accepted, and the entry of the spool that it becomes."""

from typing import NamedTuple

from bridge.event import Identity
from bridge.kafka.record import Record, identity_of
from bridge.spool.payload import pack, unpack
from bridge.spool.segment import Entry, UnreadableEntryError


class Accepted(NamedTuple):
    """A record that was accepted."""

    record: Record
    identity: Identity  # the same for every repeat of it
    ordinal: int  # rises in the order of acceptance

    def to_entry(self) -> Entry:
        """Return the entry that keeps it."""
        topic, partition, key, value, headers, timestamp_ms = self.record
        return Entry(self.ordinal, timestamp_ms, (topic, partition), pack(key, value, headers, timestamp_ms))


def from_entry(entry: Entry) -> Accepted:
    """Return the accepted record in an entry; `UnreadableEntryError` where this version finds none with an identity."""
    key, value, headers, timestamp_ms = unpack(entry.payload)
    record = Record(*entry.partition, key, value, headers, timestamp_ms)
    identity = identity_of(record.headers)
    if identity is None:
        raise UnreadableEntryError
    return Accepted(record, identity, entry.ordinal)
