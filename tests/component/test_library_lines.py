"""What libraries log: constants alone, and no more of them than a person can read."""

from __future__ import annotations

import logging

import pytest

from bridge.runtime.logging import LIBRARY_EVERY_S, LibraryHandler
from tests.logs import capture_logs


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> tuple[logging.Logger, list[float]]:
    """A library's logger, and the time."""
    now = [0.0]
    found = logging.getLogger("aiokafka.test")
    monkeypatch.setattr(found, "handlers", [LibraryHandler(now=lambda: now[0])])
    monkeypatch.setattr(found, "propagate", False)
    return found, now


def test_one_place_is_logged_once_a_second(library: tuple[logging.Logger, list[float]]) -> None:
    """A client that cannot log in says so a hundred times a second."""
    logger, now = library
    with capture_logs() as lines:
        for at in (0, 0.1, 0.2, LIBRARY_EVERY_S, 5 * LIBRARY_EVERY_S):
            now[0] = at
            logger.error("Unable connect to node with id %s: %s", 1, "Mary Smith")

    assert len(lines) == 3
    assert "Mary Smith" not in str(lines)


def test_another_place_is_logged_meanwhile(library: tuple[logging.Logger, list[float]]) -> None:
    logger, _ = library
    with capture_logs() as lines:
        for _ in range(2):
            logger.error("Unable connect to node with id %s: %s", 1, "a")
            logger.error("Unable to update metadata from %s", "b")

    assert [line["template"] for line in lines] == [
        "Unable connect to node with id %s: %s",
        "Unable to update metadata from %s",
    ]
