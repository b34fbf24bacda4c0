"""Topic and partition of each event; clients in any language compute the same."""

import re
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import lru_cache
from struct import unpack_from
from types import MappingProxyType

from bridge.contract.events import EVENT_MODELS, OTHER_REPORTED
from bridge.errors import ConfigError
from bridge.event import Event

PRESCRIPTIONS_TOPIC = "drx.prescriptions.v1"
ACCOUNTS_TOPIC = "drx.accounts.v1"
UNRECOGNIZED_TOPIC = "drx.unrecognized.v1"

# docs/contract.md §4: all events about a prescription share one topic, to keep the order per key.
DEFAULT_ROUTES: Mapping[str, str] = MappingProxyType(
    {"prescriber.enrollment_changed": ACCOUNTS_TOPIC, "system.ping": ACCOUNTS_TOPIC, "*": PRESCRIPTIONS_TOPIC}
)


def whole_key(wanted: bytes, keys: Collection[bytes]) -> bytes:
    """Return the key that an operator means: `wanted`, or the one of `keys` that has a vendor's prefix before it.

    Raises `ConfigError` with the prefixes if there are several.
    """
    prefixes = {key.partition(b":")[0] + b":" for key in keys if has_number(key, wanted)}
    if wanted in keys or not prefixes:
        return wanted
    if len(prefixes) > 1:
        named = ", ".join(sorted(prefix.decode(errors="replace") for prefix in prefixes))
        raise ConfigError(f"several vendors have this number; write it with one of the prefixes {named}")
    return prefixes.pop() + wanted


def has_number(key: bytes | None, wanted: bytes) -> bool:
    """Return whether a key is `wanted` with a vendor's prefix."""
    return bool(wanted) and key is not None and key.partition(b":")[2] == wanted


# Apache Kafka, `org.apache.kafka.common.utils.Utils.murmur2`: seed and mixing constant.
_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_UINT32 = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF  # `Utils.toPositive`
# Cached hashes: a typical key takes 3 µs to hash; this many cached keys take a few MB.
_HOT_KEYS_MAX = 16_384
# Apache Kafka, `org.apache.kafka.common.internals.Topic`: legal characters and length.
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class RoutingTable:
    """From event type to topic: the operator's longest matching pattern, else a built-in one.

    The order of patterns has no meaning, since Helm sorts the members of an object by name.
    """

    def __init__(self, routes: Mapping[str, str] | None = None) -> None:
        """`routes` (`epcs.*` to topic) precede the built-in ones; `ConfigError` for an invalid topic."""
        for pattern, topic in (routes or {}).items():
            if not _TOPIC.fullmatch(topic) or topic == UNRECOGNIZED_TOPIC:
                raise ConfigError(f"kafka.routes: {pattern!r} leads to {topic!r}, which cannot be a topic of events")
        own = longest_first(routes or {})
        self._routes = (*own, *DEFAULT_ROUTES.items())
        routed = (topic for pattern, topic in own if fnmatchcase(OTHER_REPORTED, pattern))
        self._of_accounts = next(routed, ACCOUNTS_TOPIC)
        self._known: dict[str, str] = {}

    def topic(self, event_type: str) -> str:
        """Return the topic of a type; cached, since types are a closed list."""
        topic = self._known.get(event_type)
        if topic is None:
            topic = next(topic for pattern, topic in self._routes if fnmatchcase(event_type, pattern))
            self._known[event_type] = topic
        return topic

    def topics_of(self, event_type: str) -> tuple[str, ...]:
        """Return every topic of a type: `other.reported` may be about a prescription or an account."""
        found = (
            (self.topic(event_type), self._of_accounts) if event_type == OTHER_REPORTED else (self.topic(event_type),)
        )
        return tuple(dict.fromkeys(found))

    def topic_of(self, event: Event) -> str:
        """Return the topic of an event."""
        if event.type == OTHER_REPORTED and isinstance(event, Event) and event.value["prescription_id"] is None:
            return self._of_accounts
        return self.topic(event.type)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that the bridge writes; the last one is for parked deliveries, not events."""
        return (*sorted({topic for each in EVENT_MODELS for topic in self.topics_of(each)}), UNRECOGNIZED_TOPIC)


def longest_first(routes: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Return patterns and topics in the order in which they are tried."""
    return sorted(routes.items(), key=lambda route: (-len(route[0]), route))


@lru_cache(_HOT_KEYS_MAX)
def partition(key: bytes, partitions: int) -> int:
    """Return the partition of a key for the configured count, like Kafka's `BuiltInPartitioner.partitionForKey`."""
    return (murmur2(key) & _POSITIVE) % partitions


def murmur2(key: bytes) -> int:
    """Hash `key` like `Utils.murmur2` of the Java client; the result is unsigned."""
    size = len(key)
    words, rest = divmod(size, 4)
    value = _SEED ^ size
    for word in unpack_from(f"<{words}I", key):
        mixed = word * _MIX & _UINT32
        value = (value * _MIX ^ (mixed ^ mixed >> 24) * _MIX) & _UINT32
    if rest:
        value = (value ^ int.from_bytes(key[-rest:], "little")) * _MIX & _UINT32
    value = (value ^ value >> 13) * _MIX & _UINT32
    return value ^ value >> 15
