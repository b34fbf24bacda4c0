"""Metadata are requested again only while they lack a topic."""

from dataclasses import dataclass, field

from consumers.runtime.transport import MISSING_TOPIC_S, MissingTopics


@dataclass
class Client:
    """A client, its metadata, and how often they were asked for."""

    known: dict[str, set[int]] = field(default_factory=dict)
    now: float = 100.0
    asked: int = 0

    @property
    def cluster(self) -> "Client":
        return self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.known.get(topic)

    def force_metadata_update(self) -> None:
        self.asked += 1


def test_a_missing_topic_is_asked_for_once_in_a_while_until_it_is_there() -> None:
    client = Client({"there": {0}})
    missing = MissingTopics(client, ["there", "new"], now=lambda: client.now)
    for _ in range(3):
        missing.look()
        missing.look()
        client.now += MISSING_TOPIC_S
    asked = client.asked
    client.known["new"] = {0, 1}
    missing.look()

    assert (asked, client.asked) == (3, 3)
