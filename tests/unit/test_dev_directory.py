from __future__ import annotations

import re
from base64 import b64decode
from pathlib import Path

import pytest

from bridge.dev.files import claim, require_room
from bridge.dev.sources import SOURCES
from bridge.errors import ConfigError


def test_a_secret_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    with claim(tmp_path, pid=1, free_min_bytes=0) as directory:
        slot = directory.secret_dir("drx", make=SOURCES["drx"].new_secret) / "current"
        first = slot.read_text()
        directory.secret_dir("drx", make=SOURCES["drx"].new_secret)

    assert slot.read_text() == first
    assert 24 <= len(b64decode(first.strip().removeprefix("whsec_"), validate=True)) <= 64
    assert slot.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in slot.parent.iterdir()] == ["current"]


def test_a_second_claim_names_the_first_until_that_ends(tmp_path: Path) -> None:
    with (
        claim(tmp_path, pid=41, free_min_bytes=0),
        pytest.raises(ConfigError, match=r"in use by another `drx-bridge dev`, pid 41$"),
    ):
        claim(tmp_path, pid=42, free_min_bytes=0).__enter__()

    with claim(tmp_path, pid=43, free_min_bytes=0) as directory:
        assert (directory.path / "dev.lock").read_text() == "43\n"


def test_too_little_disk_says_how_much(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        require_room(tmp_path, free_min_bytes=1 << 60)

    assert re.search(r"too little disk, \d+ MiB free and 1099511627776 MiB needed$", str(refused.value))
