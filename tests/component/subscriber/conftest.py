"""Fixtures of the subscriber's tests."""

from __future__ import annotations

import pytest

from consumers.runtime import adoption, committer, membership, subscriber
from tests.component.subscriber.group import Group


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test see in milliseconds what production sees in seconds."""
    monkeypatch.setattr(adoption, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(adoption, "BEYOND_END_S", 0.001)
    monkeypatch.setattr(committer, "PERIOD_S", 0.01)
    monkeypatch.setattr(membership, "POLL_S", 0.02)
    monkeypatch.setattr(membership, "FAILED_S", 0.01)
    monkeypatch.setattr(subscriber, "RETRY_FIRST_S", 0.01)
    monkeypatch.setattr("consumers.runtime.watchdog.TICK_S", 0.01)


@pytest.fixture
def group() -> Group:
    return Group()
