"""What the settings of workflow make of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Consumer, Context, Setup
from consumers.testing import an_event
from consumers.workflow.consumer import open_workflow
from consumers.workflow.rules import Action

LEAST = {"address": "temporal.example:7233"}


def opened(**options: str) -> Consumer:
    return open_workflow(Setup({**LEAST, **options}, CollectorRegistry()))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "temporal.example"}, "workflow.address"),
        ({"address": "https://temporal.example:7233"}, "workflow.address"),
        ({"address": "me:hunter2@temporal.example:7233"}, "workflow.address"),
        ({"payload": "full"}, "codec_key_dir"),
        ({"timers_from": "yesterday"}, "workflow.timers_from"),
        ({"read_model_schema": 'x"; drop'}, "workflow.read_model_schema"),
        ({"rules": "/nowhere/rules.toml"}, "workflow.rules: cannot read /nowhere/rules.toml"),
        ({"adress": "hunter2"}, "no setting 'adress'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        opened(**options)

    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_doctor_is_told_where_health_information_goes(tmp_path: Path) -> None:
    (tmp_path / "2026-09").write_text("MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=")
    ids, table = opened().discloses or ()
    plain, whole = opened(
        allow_plaintext="true", payload="full", codec_key_dir=str(tmp_path), timers="off"
    ).discloses or ()  # fmt: skip

    of = "histories of Temporal at temporal.example:7233, namespace default"
    assert ids == f"ids of prescriptions, requests, messages and accounts: {of}"
    assert table == "ids of what waits too long: table workflow.started of this database"
    assert plain == f"ids of prescriptions, requests, messages and accounts, in clear: {of}"
    assert whole == f"whole events, sealed with the key 2026-09 of {tmp_path}: {of}"


class Recorder:
    """Takes every action."""

    def __init__(self) -> None:
        self.actions: list[Action] = []

    async def act(self, action: Action, payload: bytes, *, request_id: str) -> bool:
        assert payload
        assert request_id
        self.actions.append(action)
        return True


@pytest.mark.parametrize(
    ("origin", "imports", "many"),
    [("", "skip", 1), ("replay", "skip", 1), ("import", "skip", 0), ("import", "apply", 1)],
)
async def test_an_import_starts_nothing_unless_that_is_wanted(origin: str, imports: str, many: int) -> None:
    resource = Recorder()
    context = Context("workflow", "drx.prescriptions.v1", 0, 0, "test:0", 1, resource=resource, origin=origin)
    handle: Any = opened(imports=imports).handle
    await handle(an_event("alert.raised"), context)

    assert len(resource.actions) == many


async def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "current").write_text("c2hvcnQ=")
    for options, words in (
        ({"tls_dir": str(tmp_path)}, "has neither ca.crt nor tls.crt"),
        ({"api_key_file": str(tmp_path / "none")}, "workflow.api_key_file"),
        ({"codec_key_dir": str(tmp_path)}, "a key is the base64 of 32 bytes"),
    ):
        around = opened(**options).around
        assert around is not None
        with pytest.raises(ConfigError, match=words):
            async with around():
                pass
