"""An accepted record, and its conversion to and from a spool entry."""

from typing import NamedTuple

from bridge.event import Identity
from bridge.kafka.record import Record, identity_of
from bridge.spool.payload import pack, unpack
from bridge.spool.segment import Entry, UnreadableEntryError


class Accepted(NamedTuple):
    """A record that was accepted for writing."""

    record: Record
    identity: Identity  # the same for every repeat
    ordinal: int  # rises in the order of acceptance

    def to_entry(self) -> Entry:
        """Return the spool entry of the record."""
        topic, partition, key, value, headers, timestamp_ms = self.record
        return Entry(self.ordinal, timestamp_ms, (topic, partition), pack(key, value, headers, timestamp_ms))


def from_entry(entry: Entry) -> Accepted:
    """Return the record of an entry; `UnreadableEntryError` if this version cannot read it or its identity."""
    key, value, headers, timestamp_ms = unpack(entry.payload)
    record = Record(*entry.partition, key, value, headers, timestamp_ms)
    identity = identity_of(record.headers)
    if identity is None:
        raise UnreadableEntryError
    return Accepted(record, identity, entry.ordinal)
