import os
from pathlib import Path

import pytest

from bridge.dev.files import claim
from bridge.dev.sources import SOURCES
from bridge.errors import ConfigError


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    with claim(tmp_path) as directory:
        slot = directory.secret_dir("drx", make=SOURCES["drx"].new_secret) / "current"
        first = slot.read_text()
        directory.secret_dir("drx", make=SOURCES["drx"].new_secret)

    assert slot.read_text() == first
    assert slot.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in slot.parent.iterdir()] == ["current"]


def test_a_second_claim_names_the_first_until_that_ends(tmp_path: Path) -> None:
    with claim(tmp_path), pytest.raises(ConfigError, match=rf"in use by another `drx-bridge dev`, pid {os.getpid()}$"):
        claim(tmp_path).__enter__()

    with claim(tmp_path):
        pass
