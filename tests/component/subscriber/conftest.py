"""Fixtures of the subscriber's tests."""

import pytest

from consumers.runtime import member, subscriber
from tests.component.subscriber.group import Group


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten intervals from seconds to milliseconds."""
    monkeypatch.setattr(member, "CLAIM_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(member, "BEYOND_END_S", 0.001)
    monkeypatch.setattr(member, "COMMIT_PERIOD_S", 0.01)
    monkeypatch.setattr(member, "POLL_S", 0.02)
    monkeypatch.setattr(member, "FAILED_POLL_S", 0.01)
    monkeypatch.setattr(subscriber, "CLIENT_RETRY_FIRST_S", 0.01)
    monkeypatch.setattr(member, "WATCH_PERIOD_S", 0.01)


@pytest.fixture
def group() -> Group:
    return Group()
