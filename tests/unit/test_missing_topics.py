"""Metadata are asked for again while they lack a topic, and only then."""

from __future__ import annotations

from dataclasses import dataclass, field

from consumers.runtime.transport import MISSING_TOPIC_FIRST_S, MISSING_TOPIC_MAX_S, MissingTopics


@dataclass
class Client:
    """A client, its metadata, and when they were asked for."""

    known: dict[str, set[int]] = field(default_factory=dict)
    now: float = 100.0
    asked: list[float] = field(default_factory=list)

    @property
    def cluster(self) -> Client:
        return self

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return self.known.get(topic)

    def force_metadata_update(self) -> None:
        self.asked.append(self.now)

    def look_for(self, seconds: float, missing: MissingTopics) -> list[float]:
        """Look ten times a second; return the times between questions."""
        self.asked.clear()
        begun = self.now
        while self.now < begun + seconds:
            missing.look()
            self.now += 0.125
        return [later - earlier for earlier, later in zip(self.asked, self.asked[1:], strict=False)]


def test_nothing_is_asked_while_every_topic_is_known() -> None:
    client = Client({"a": {0, 1}, "b": {0}})

    client.look_for(60.0, MissingTopics(client, ["a", "b"], now=lambda: client.now, spread=max))

    assert client.asked == []


def test_one_topic_that_is_missing_or_without_partitions_is_asked_for_at_once_and_ever_more_rarely() -> None:
    for partial in ({"a": {0}}, {"a": {0}, "b": set[int]()}):
        client, first = Client(partial), MISSING_TOPIC_FIRST_S

        between = client.look_for(60.0, MissingTopics(client, ["a", "b"], now=lambda: client.now, spread=max))  # noqa: B023 - used here

        assert client.asked[0] == 100.0
        assert between[:5] == [first, 2 * first, 4 * first, 8 * first, MISSING_TOPIC_MAX_S]
        assert set(between[5:]) == {MISSING_TOPIC_MAX_S}


def test_a_topic_that_is_deleted_later_is_asked_for_anew() -> None:
    client = Client({"a": {0}})
    missing = MissingTopics(client, ["a"], now=lambda: client.now, spread=max)
    client.look_for(60.0, missing)
    client.known.clear()

    assert client.look_for(5.0, missing)[0] == MISSING_TOPIC_FIRST_S
