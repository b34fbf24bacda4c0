"""What several tests of the chart need."""

from __future__ import annotations

import os

import pytest


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without settings of ours."""
    for name in os.environ:
        if name.startswith(("BRIDGE_", "CONSUMER_")):
            monkeypatch.delenv(name)
    return monkeypatch
