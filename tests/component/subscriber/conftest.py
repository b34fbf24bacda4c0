"""Fixtures of the subscriber's tests."""

from __future__ import annotations

import pytest

from consumers.runtime import subscriber
from tests.component.subscriber.group import Group


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test see in milliseconds what production sees in seconds."""
    monkeypatch.setattr(subscriber, "CLAIM_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(subscriber, "BEYOND_END_S", 0.001)
    monkeypatch.setattr(subscriber, "COMMIT_PERIOD_S", 0.01)
    monkeypatch.setattr(subscriber, "POLL_S", 0.02)
    monkeypatch.setattr(subscriber, "FAILED_POLL_S", 0.01)
    monkeypatch.setattr(subscriber, "CLIENT_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(subscriber, "WATCH_PERIOD_S", 0.01)


@pytest.fixture
def group() -> Group:
    return Group()
