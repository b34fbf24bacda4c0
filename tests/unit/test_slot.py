"""A secret with its window, and what counts as the text of a shared one."""

from __future__ import annotations

import base64

import pytest

from bridge.runtime.slot import Slot, shared_key


def test_a_slot_counts_from_its_first_to_its_last_second() -> None:
    slot = Slot("current", b"key", not_before=10.0, accept_until=20.0)

    assert [slot.counts_at(now) for now in (9.9, 10.0, 20.0, 20.1)] == [False, True, True, False]


def test_a_key_is_never_shown() -> None:
    assert "hunter2" not in repr(Slot("current", "hunter2"))


@pytest.mark.parametrize("size", [24, 32, 64])
def test_a_shared_key_of_the_standard_is_decoded(size: int) -> None:
    assert shared_key("whsec_" + base64.b64encode(bytes(size)).decode()) == bytes(size)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        base64.b64encode(bytes(32)).decode(),
        "whpk_" + base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(23)).decode(),
        "whsec_" + base64.b64encode(bytes(65)).decode(),
        "whsec_ " + base64.b64encode(bytes(32)).decode(),
        "whsec_" + base64.b64encode(bytes(32)).decode() + "\n",
        "whsec_é",
    ],
)
def test_any_other_text_is_none(text: str) -> None:
    assert shared_key(text) == b""
