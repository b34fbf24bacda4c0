"""What the settings of workflow make of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Consumer, Context, Lanes, Setup
from consumers.testing import an_event
from consumers.workflow.consumer import open_workflow
from consumers.workflow.rules import Action

LEAST = {"address": "temporal.example:7233"}


def opened(**options: str) -> Consumer:
    return open_workflow(Setup({**LEAST, **options}, CollectorRegistry()))


def test_the_least_settings_make_a_consumer_with_timers() -> None:
    consumer = opened()

    assert (consumer.name, consumer.group) == ("workflow", "workflow")
    assert consumer.topics == ("drx.prescriptions.v1", "drx.accounts.v1")
    assert consumer.mode == Lanes(8)
    assert consumer.unknown == "park"
    assert consumer.wants("renewal.requested")
    assert not consumer.wants("fill.status_changed")
    assert consumer.prepare is not None
    assert [(each.every_s, each.resource) for each in consumer.jobs] == [(60.0, True)]


def test_timers_can_be_left_out() -> None:
    consumer = opened(timers="off")

    assert (consumer.jobs, consumer.prepare) == ([], None)


def test_each_instance_has_a_group_and_a_table_of_its_own() -> None:
    consumer = opened(instance="desk-2")

    assert consumer.group == "workflow.desk-2"
    assert consumer.tables is not None
    assert consumer.tables.schema == "workflow_desk_2"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"address": "temporal.example"}, "workflow.address"),
        ({"address": "https://temporal.example:7233"}, "workflow.address"),
        ({"address": "me:hunter2@temporal.example:7233"}, "workflow.address"),
        ({"address": "a:1,b:2"}, "workflow.address"),
        ({"namespace": ""}, "workflow.namespace"),
        ({"payload": "all"}, "workflow.payload"),
        ({"payload": "full"}, "codec_key_dir"),
        ({"timers": "yes"}, "workflow.timers"),
        ({"timers_from": "yesterday"}, "workflow.timers_from"),
        ({"read_model_schema": 'x"; drop'}, "workflow.read_model_schema"),
        ({"imports": "yes"}, "workflow.imports"),
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


def test_a_rule_that_cannot_be_used_is_named_with_its_file(tmp_path: Path) -> None:
    rules = tmp_path / "ours.toml"
    rules.write_text('task_queue = "q"\n[[rule]]\ntypes = ["renewal.asked"]\n')

    with pytest.raises(ConfigError, match=rf"^{rules}: rule 1 types: no event type is 'renewal.asked'$"):
        opened(rules=str(rules))


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


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    code = (
        "import sys; sys.modules['temporalio'] = None\n"
        "from bridge.errors import ConfigError\n"
        "try: import consumers.workflow.consumer\n"
        "except ConfigError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - our own line

    assert "pip install 'drx-bridge[workflow]'" in done.stdout
