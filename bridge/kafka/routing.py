"""Choose the topic of each event, and its partition by the rule of Kafka's Java client."""

import re
from collections.abc import Mapping, Sequence
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
# Apache Kafka, `org.apache.kafka.common.utils.Utils.murmur2`: seed and mixing constant.
_SEED = 0x9747B28C
_MIX = 0x5BD1E995
_UINT32 = 0xFFFFFFFF
_POSITIVE = 0x7FFFFFFF  # `Utils.toPositive`
# Cached partitions: a typical key takes 3 µs to hash; this many keys take a few MB.
_CACHED_KEYS_MAX = 16_384
# Apache Kafka, `org.apache.kafka.common.internals.Topic`: legal characters and length.
_TOPIC = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9._-]{1,249}")


class RoutingTable:
    """Maps event types to topics: by the operator's longest matching pattern, else by a built-in one.

    The order in which patterns are configured has no effect, since Helm sorts the members of an object by name.
    """

    def __init__(self, routes: Mapping[str, str] | None = None) -> None:
        """`routes` maps patterns (`epcs.*`) to topics and precedes the built-in ones; `ConfigError` for a bad topic."""
        for pattern, topic in (routes or {}).items():
            if not _TOPIC.fullmatch(topic) or topic == UNRECOGNIZED_TOPIC:
                raise ConfigError(f"kafka.routes: {pattern!r} leads to {topic!r}, which cannot be a topic of events")
        own = longest_first(routes or {})
        self._routes = (*own, *DEFAULT_ROUTES.items())
        routed = (topic for pattern, topic in own if fnmatchcase(OTHER_REPORTED, pattern))
        self._accounts_topic = next(routed, ACCOUNTS_TOPIC)
        self._topics: dict[str, str] = {}

    def topic_of_type(self, event_type: str) -> str:
        """Return the topic of a type; cached, since types are a closed list."""
        topic = self._topics.get(event_type)
        if topic is None:
            topic = next(topic for pattern, topic in self._routes if fnmatchcase(event_type, pattern))
            self._topics[event_type] = topic
        return topic

    def topics_of_type(self, event_type: str) -> tuple[str, ...]:
        """Return every topic of a type: `other.reported` may be about a prescription or an account."""
        accounts = (self._accounts_topic,) if event_type == OTHER_REPORTED else ()
        return tuple(dict.fromkeys((self.topic_of_type(event_type), *accounts)))

    def topic_of_event(self, event: Event) -> str:
        """Return the topic of an event."""
        if event.type == OTHER_REPORTED and event.value["prescription_id"] is None:
            return self._accounts_topic
        return self.topic_of_type(event.type)

    @property
    def topics(self) -> tuple[str, ...]:
        """All topics that the bridge writes; the last one has parked deliveries, not events."""
        return (*sorted({topic for each in EVENT_MODELS for topic in self.topics_of_type(each)}), UNRECOGNIZED_TOPIC)


def longest_first(routes: Mapping[str, str]) -> Sequence[tuple[str, str]]:
    """Return patterns and topics in the order in which patterns are tried."""
    return sorted(routes.items(), key=lambda route: (-len(route[0]), route))


@lru_cache(_CACHED_KEYS_MAX)
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
