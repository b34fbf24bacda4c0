"""`drx-bridge map` and `mapping check` show the ingress's result for a body."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bridge.commands.config import config
from bridge.commands.map import map_body, mapping
from bridge.errors import ConfigError
from bridge.mapping.mapped import compile_mapping
from tests.audit_lines import acts
from tests.builders import SAMPLES, SECRET, a_body
from tests.unit.mapping_files import ACCOUNT, ACME, BODY


def run(*arguments: str | Path) -> int:
    code: int = map_body.main([str(each) for each in arguments], standalone_mode=False)
    return code


def outcome(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    run(*arguments, "--json")
    (line,) = capsys.readouterr().out.splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


@pytest.fixture
def body(tmp_path: Path) -> Path:
    path = tmp_path / "body.json"
    path.write_bytes(a_body(data_note="CANARY"))
    return path


def test_an_event_has_its_place_in_kafka_and_health_information_is_masked(
    body: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = outcome(capsys, body)

    (event,) = document["events"]
    assert (event["id"], event["type"]) == ("evt_1", "prescription.processed")
    assert (event["topic"], event["key"], event["partition"]) == ("drx.prescriptions.v1", "rx_1", 0)
    assert event["value"]["prescription_id"] == event["value"]["extensions"] == "***"
    assert document["extensions"] == [["prescription.processed", "/data/note"]]
    assert "CANARY" not in json.dumps(document)


def test_health_information_is_shown_to_who_asks_with_an_audit_line(
    body: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(body, "--show-phi") == 0

    out, err = capfd.readouterr()
    assert "CANARY" in out
    assert acts(err) == [("map", "begun"), ("map", "done")]
    assert "CANARY" not in err


@pytest.mark.parametrize(
    ("changes", "parked"),
    [
        ({"timestamp": "CANARY"}, ("unusable", "bad_time", "/timestamp")),
        ({"environment": ["CANARY"]}, ("environment_mismatch", "", "/environment")),
    ],
)
def test_what_would_be_parked_says_why_and_where_and_never_the_value(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], parked: tuple[str, str, str]
) -> None:
    path = tmp_path / "body.json"
    path.write_bytes(a_body(**changes))

    found = outcome(capsys, path)["parked"]

    assert (found["reason"], found["detail"], found["field"]) == parked
    assert (found["topic"], found["key"]) == ("drx.unrecognized.v1", "rx_1")
    assert run(path) == 1
    out = capsys.readouterr().out
    assert " ".join(filter(None, parked)) in out
    assert "CANARY" not in out


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "acme.toml"
    path.write_text(ACME)
    return path


def sent(tmp_path: Path, name: str, **changes: Any) -> str:
    path = tmp_path / f"{name}.json"
    path.write_text(json.dumps(BODY | changes))
    return str(path)


def test_a_configured_source_has_its_profile_and_environment_and_shows_the_hash_of_its_mapping(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], clean: pytest.MonkeyPatch
) -> None:
    (tmp_path / "current").write_text(SECRET)
    for name, value in {
        "PROFILE": "mapped",
        "ENVIRONMENT": "sandbox",
        "SECRETS_DIR": str(tmp_path),
        "OPTIONS__MAPPING": str(file),
        "OPTIONS__ACCOUNT_ID": "acct_1",
    }.items():
        clean.setenv(f"BRIDGE_SOURCES__ACME__{name}", value)
    body = sent(tmp_path, "state")
    digest = compile_mapping(ACME.encode(), "", ACCOUNT).sha256

    (event,) = outcome(capsys, body, "--source", "acme")["events"]
    config.main(["--json"], standalone_mode=False)
    config.main([], standalone_mode=False)

    assert event["key"] == "acme:7"
    document, *table = capsys.readouterr().out.splitlines()
    assert json.loads(document)["sources"]["acme"]["mapping_sha256"] == digest
    assert any("BRIDGE_SOURCES__ACME__OPTIONS__MAPPING" in line and digest in line for line in table)
    with pytest.raises(ConfigError, match=r"no source is named 'acmee'"):
        run(body, "--source", "acmee")


def test_a_profile_has_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    sample = SAMPLES / "profiles/p11_dosespot_prescription_result.json"
    arguments = ("--profile", "dosespot_push", "--option", "account_id=acct_9", "--option", "zone=America/Chicago")

    document = outcome(capsys, sample, *arguments)

    assert document["events"][0]["key"].startswith("ds:")
    with pytest.raises(ConfigError, match=r"--profile: no profile is named 'drx_standart'"):
        run(sample, "--profile", "drx_standart")


def check(*arguments: str) -> int:
    code: int = mapping.main(["check", *arguments], standalone_mode=False)
    return code


def test_a_body_that_would_be_parked_fails_the_check(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parked = (sent(tmp_path, "two", rx={"id": "CANARY 7"}), sent(tmp_path, "three", kind="OTHER"))
    assert check(str(file), sent(tmp_path, "one", note="CANARY")) == 0
    code = check(str(file), *parked, "--account-id", "a")

    output = capsys.readouterr().out
    assert code == 1
    assert "  fulfillment.status_changed  " in output
    assert "unknown fields kept in extensions: 1\n" in output
    assert "parked: unusable bad_key /rx/id" in output
    assert "parked: unknown_type no [[event]] has a `when` that is true" in output
    assert "CANARY" not in output
    digest = compile_mapping(ACME.encode(), "", ACCOUNT).sha256
    assert f": 1 [[event]] table, sha256 {digest}" in output.replace("\n", "")


def test_a_list_that_is_not_there_is_named_instead_of_what_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "lines.toml").write_text(ACME.replace("[[event]]", '[[event]]\neach = "orders[].lines"'))

    check(str(tmp_path / "lines.toml"), sent(tmp_path, "one"), sent(tmp_path, "two", orders=[{"items": [{}]}]))

    output = capsys.readouterr().out
    assert "parked: unknown_type `each` finds nothing at /orders\n" in output
    assert "parked: unknown_type `each` finds nothing at /orders/*/lines\n" in output


BATCH = """\
prefix = "acme:"
key = "rx"
each = "events"
time = "at"
[[event]]
when = "type == 'P'"
type = "prescription.updated"
[event.data]
changed_fields = '`[]`'
reason = "why"
[[event]]
when = "type == 'S'"
type = "fulfillment.status_changed"
[event.data]
queue_id = "queue"
fulfillment_status = "state"
"""
UPDATED = {"type": "P", "rx": "1", "patient": {"name": "CANARY"}}


@pytest.fixture
def batch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any]]]:
    file, body = tmp_path / "batch.toml", tmp_path / "batch.json"

    def run_check(*events: dict[str, Any], head: str = "", strict: bool = False) -> tuple[int, dict[str, Any]]:
        file.write_text(head + BATCH)
        body.write_text(json.dumps({"events": events, "sent": "CANARY"}))
        code = check(str(file), str(body), "--json", *(["--strict"] if strict else []))
        output = capsys.readouterr().out
        assert "CANARY" not in output
        return code, json.loads(output.splitlines()[-1])

    return run_check


def test_the_check_names_what_samples_do_not_use_of_the_file(batch: Any) -> None:
    code, report = batch(UPDATED)

    assert code == 0
    assert report["tables_never_fired"] == ["event.2"]
    assert report["fields_never_given"] == ["event.1.time", "event.1.data.reason"]
    assert report["kept_as_extensions"] == ["/events/*/patient", "/sent"]
    assert batch(UPDATED, strict=True)[0] == 1
    whole = {"type": "S", "rx": "2", "queue": "q", "state": "packed", "at": "2026-09-14"}
    assert batch(UPDATED | {"why": "w", "at": 1}, whole, strict=True) == (
        0,
        report | {"tables_never_fired": [], "fields_never_given": []},
    )


def test_elements_without_an_event_fail_the_check(batch: Any) -> None:
    unknown = ({"type": "Q", "rx": "3"}, {"type": "R"})

    code, report = batch(UPDATED, *unknown)
    assert (code, report["elements_without_event"]) == (1, {"/events/*": 2})
    code, report = batch(UPDATED, *unknown, head='reported = "type"\nignore = ["R"]\n')
    assert (code, report["elements_without_event"], report["elements_ignored"]) == (0, {}, 1)


def test_all_that_a_body_lacks_is_named_together(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = ACME.replace('queue_id = "rx.id"', 'queue_id = "rx.queue"')
    file.write_text(text)

    assert check(str(file), sent(tmp_path, "one", state=None)) == 1

    output = capsys.readouterr().out
    assert "parked: unusable missing_field" in output
    assert "missing: /rx/queue, /state" in output
    assert "fields never given: event.1.data.queue_id, event.1.data.fulfillment_status" in output
