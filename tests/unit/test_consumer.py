"""A consumer's declaration, and its limits in a process."""

import functools
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from bridge.errors import ConfigError
from consumers.api import PUBLISH_MAX_BYTES, Batches, Consumer, Lanes
from consumers.testing import a_context


def count(consumer: Consumer) -> int:
    assert isinstance(consumer.mode, Lanes)
    return consumer.mode.count


@pytest.mark.parametrize(("connections", "lanes"), [(100, 8), (9, 8), (8, 7), (3, 2), (2, 1)])
def test_transactional_lanes_leave_one_connection_free(connections: int, lanes: int) -> None:
    assert count(Consumer("tests", ["topic"], mode=Lanes(8, transactional=True)).within(connections)) == lanes


class SyncCall:
    def __call__(self, *given: object) -> None:
        del given


def effect_at_once(*given: object) -> None:
    del given


async def yields(*given: object) -> AsyncIterator[object]:
    yield given


REFUSED = [effect_at_once, SyncCall(), functools.partial(effect_at_once, 1), yields]


@pytest.mark.parametrize("function", REFUSED)
def test_a_synchronous_handler_is_refused_at_registration(function: Callable[..., Any]) -> None:
    """Its effect would happen at each attempt, and each attempt would fail."""
    consumer = Consumer("tests", ["topic"])

    with pytest.raises(ConfigError, match="async def"):
        consumer.handler(function)
    with pytest.raises(ConfigError, match="async def"):
        consumer.job(every_s=1)(function)
    with pytest.raises(ConfigError, match="async def"):
        Consumer("tests", ["topic"], handle=function)

    assert (consumer.handle, consumer.jobs) == (None, [])


@pytest.mark.parametrize("field", ["topics", "types", "publishes", "discloses"])
def test_a_text_in_the_place_of_a_list_is_refused(field: str) -> None:
    """Its characters would be the patterns: every event would be passed over, or, with a `*`, none."""
    given: dict[str, Any] = {"topics": ["topic"], field: "renewal.*"}

    with pytest.raises(ConfigError, match=f"{field} must be a list"):
        Consumer("tests", **given)


@pytest.mark.parametrize("count", [0, -1])
def test_a_mode_that_handles_nothing_is_refused(count: int) -> None:
    with pytest.raises(ConfigError, match="at least one lane"):
        Lanes(count)
    with pytest.raises(ConfigError, match="at least one record"):
        Batches(records=count)


def test_batches_that_no_window_fills_are_refused() -> None:
    with pytest.raises(ConfigError, match="are never full"):
        Batches(records=2_000)
    assert Batches(records=2_000, window_records=2_000).records == 2_000


# Each takes as many bytes of UTF-8 as may be published, in another part of the record.
LARGEST: list[dict[str, Any]] = [
    {"key": "k" * PUBLISH_MAX_BYTES, "value": None},
    {"key": None, "value": b"v" * PUBLISH_MAX_BYTES},
    {"key": "k", "value": b"v", "headers": {"h": "\N{EURO SIGN}" * ((PUBLISH_MAX_BYTES - 3) // 3)}},
]


@pytest.mark.parametrize("largest", LARGEST, ids=["key", "value", "headers"])
def test_a_record_that_no_topic_takes_is_not_published(largest: dict[str, Any]) -> None:
    """It would wait in the outbox for ever, and all that comes after it."""
    context = a_context()

    context.publish("desk.done", **largest)
    with pytest.raises(ValueError, match=str(PUBLISH_MAX_BYTES)):
        context.publish("desk.done", **largest | {"headers": {**largest.get("headers", {}), "one": ""}})

    assert len(context.outgoing) == 1


@pytest.mark.parametrize(
    ("key", "value", "headers"), [(7, "", {}), ("", {"a": 1}, {}), ("", "", {"h": b"bytes"}), ("", "", {"h": None})]
)
def test_what_cannot_be_written_is_a_bug_of_the_handler(key: Any, value: Any, headers: Any) -> None:
    """It fails where it is published, and not at the end of the transaction, where no handler is at fault."""
    context = a_context()

    with pytest.raises(AttributeError):
        context.publish("topic", key, value, headers=headers)

    assert context.outgoing == []


def test_a_consumer_makes_at_least_one_attempt() -> None:
    assert Consumer("tests", ["topic"], attempts=1).attempts == 1
    with pytest.raises(ConfigError):
        Consumer("tests", ["topic"], attempts=0)
