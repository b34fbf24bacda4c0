"""A consumer's own settings: read once, closed, and silent about what they hold."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from pydantic import model_validator

from bridge.errors import ConfigError, TransientError
from consumers.api import Consumer, Setup
from consumers.archive.consumer import open_archive
from consumers.archive.options import ArchiveOptions
from consumers.fhir.consumer import open_fhir
from consumers.fhir.options import FhirOptions
from consumers.forward.consumer import open_forward
from consumers.forward.options import ForwardOptions
from consumers.hl7v2.consumer import open_hl7v2
from consumers.hl7v2.options import Hl7Options
from consumers.options import UNNAMED, EndpointOptions, Instant, Options, WordList, read_options, read_token, server_of
from consumers.read_model.consumer import open_read_model
from consumers.read_model.options import ReadModelOptions
from consumers.workflow.consumer import open_workflow
from consumers.workflow.options import WorkflowOptions

OPENED: Mapping[str, tuple[Callable[[Setup], Consumer], dict[str, str]]] = {
    "archive": (open_archive, {"root": "/lake"}),
    "fhir": (open_fhir, {"base_url": "https://ehr.example/fhir"}),
    "forward": (open_forward, {"url": "https://ehr.example/drx", "secrets_dir": "/etc/drx-bridge/forward"}),
    "hl7v2": (open_hl7v2, {"host": "engine.example", "port": "6661"}),
    "read_model": (open_read_model, {}),
    "workflow": (open_workflow, {"address": "temporal.example:7233"}),
}


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("archive", {"columns": "hashed"}, "hash_key_file belongs to columns=hashed"),
        ("archive", {"hash_key_file": "/etc/hostname"}, "hash_key_file belongs to columns=hashed"),
        ("archive", {"root": "lake"}, "archive.root"),
        ("archive", {"root": "s3://key:hunter2@lake"}, "archive.root"),
        ("archive", {"root": "s3://lake?endpoint_override=localhost"}, "archive.root"),
        ("archive", {"root": "s3://lake", "endpoint": "http://minio.test"}, "archive"),
        ("archive", {"root": "s3://lake", "endpoint": "https://me:hunter2@m.test", "allow_http": "true"}, "archive"),
        ("archive", {"endpoint": "https://minio.test"}, "endpoint belongs to a root of s3"),
        ("archive", {"raw": "true", "columns": "no_d"}, "raw=true needs columns=all"),
        ("archive", {"schema": "drx_consumer"}, "archive.schema"),
        ("archive", {"topics": "drx.unrecognized.v1"}, "is read with raw=true"),
        ("archive", {"batch_records": "20001"}, "archive.batch_records"),
        ("archive", {"wait_s": "86401"}, "archive.wait_s"),
        ("archive", {"iceberg": "true"}, "iceberg"),
        ("fhir", {"base_url": ""}, "fhir.base_url"),
        ("fhir", {"instance": "Not-One"}, "fhir.instance"),
        ("fhir", {"references": "literal"}, "fhir.references"),
        ("fhir", {"mrn_system": "our mrn"}, "fhir.mrn_system"),
        ("fhir", {"identifier_base": "urn:drx"}, "fhir.identifier_base"),
        ("forward", {"url": ""}, "forward.url"),
        ("forward", {"lanes": "0"}, "forward.lanes"),
        ("forward", {"url": "https://a.example/?b", "path": "/c"}, "path cannot follow a URL with a query"),
        ("forward", {"accounts": " , "}, "forward.accounts"),
        ("forward", {"when": "data.["}, "forward.when"),
        ("hl7v2", {"port": "0"}, "hl7v2.port"),
        ("hl7v2", {"connections": "0"}, "hl7v2.connections"),
        ("hl7v2", {"ack_mode": "both"}, "hl7v2.ack_mode"),
        ("hl7v2", {"assigner": "A^B"}, "hl7v2.assigner"),
        ("hl7v2", {"timezone": "Mars/Base"}, "hl7v2.timezone"),
        ("hl7v2", {"no_patient": "maybe"}, "hl7v2.no_patient"),
        *(
            ("hl7v2", {"host": host}, "hl7v2.host")
            for host in ("", "engine..example", "mllp://engine.example", "engine.example:6661", "engine.example/in")
        ),
        ("read_model", {"schema": "Read Model"}, "read_model.schema"),
        ("read_model", {"schema": 'x"; drop'}, "read_model.schema"),
        ("read_model", {"schema": "drx_consumer"}, "read_model.schema"),
        ("read_model", {"schema": "x" * 64}, "read_model.schema"),
        ("read_model", {"alarms_from": "2026-09-14T15:00:00"}, "read_model.alarms_from"),
        ("workflow", {"address": "temporal.example"}, "workflow.address"),
        ("workflow", {"address": "https://temporal.example:7233"}, "workflow.address"),
        ("workflow", {"address": "me:hunter2@temporal.example:7233"}, "workflow.address"),
        ("workflow", {"payload": "full"}, "codec_key_dir"),
        ("workflow", {"timers_from": "yesterday"}, "workflow.timers_from"),
        ("workflow", {"read_model_schema": 'x"; drop'}, "workflow.read_model_schema"),
        ("workflow", {"rules": "/nowhere/rules.toml"}, "workflow.rules: cannot read /nowhere/rules.toml"),
        *((name, {"ulr": "hunter2"}, "no setting 'ulr'") for name in OPENED),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(name: str, options: dict[str, str], words: str) -> None:
    opened, least = OPENED[name]
    with pytest.raises(ConfigError) as caught:
        opened(Setup({**least, **options}, CollectorRegistry()))

    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


class DeskOptions(EndpointOptions):
    url: str
    types: WordList = ("*",)
    since: Instant | None = None
    lanes: int = 8

    @model_validator(mode="after")
    def _narrow(self) -> "DeskOptions":
        if self.lanes > 1 and self.url == "slow":
            msg = "a slow desk has lanes=1"
            raise ValueError(msg)
        return self


def test_text_becomes_what_the_model_says() -> None:
    given = {"url": "https://desk.test", "types": "renewal.*, fill.*", "since": "2026-09-14T15:00:00Z", "lanes": "4"}

    options = read_options(DeskOptions, "desk", given)
    assert options == DeskOptions(
        url="https://desk.test", types=("renewal.*", "fill.*"), since=datetime(2026, 9, 14, 15, tzinfo=UTC), lanes=4
    )


@pytest.mark.parametrize(("instance", "group"), [("", "desk"), ("ehr", "desk.ehr"), ("ehr-2", "desk.ehr-2")])
def test_each_instance_is_a_group_of_its_own(instance: str, group: str) -> None:
    assert read_options(DeskOptions, "desk", {"url": "u", "instance": instance}).group("desk") == group


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({}, r"desk-2\.url is missing: set CONSUMER_DESK_2__URL"),
        ({"url": "u", "urls": "secret"}, r"desk-2 has no setting 'urls'; it has instance, url, types, since, lanes"),
        ({"url": "u", "lanes": "secret"}, r"desk-2\.lanes: "),
        ({"url": "u", "types": " , "}, r"desk-2\.types: "),
        ({"url": "u", "since": "secret"}, r"desk-2\.since: a time with its zone"),
        ({"url": "u", "since": "2026-09-14T15:00:00"}, r"desk-2\.since: a time with its zone"),
        ({"url": "u", "instance": "Secret.1"}, r"desk-2\.instance: "),
        ({"url": "u", "instance": "ehr_2"}, r"desk-2\.instance: "),  # its schema would be that of ehr-2
        ({"url": "slow"}, r"^desk-2: a slow desk has lanes=1$"),
    ],
)
def test_what_cannot_be_used_is_one_line_without_its_value(given: dict[str, str], line: str) -> None:
    with pytest.raises(ConfigError, match=line) as caught:
        read_options(DeskOptions, "desk-2", given)

    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value).lower()


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("archive", ArchiveOptions),
        ("fhir", FhirOptions),
        ("forward", ForwardOptions),
        ("hl7v2", Hl7Options),
        ("read_model", ReadModelOptions),
        ("workflow", WorkflowOptions),
    ],
)
def test_the_page_of_a_consumer_names_every_setting(name: str, model: type[Options]) -> None:
    """What a setting does stands there, or on the page of what several have."""
    page = (Path(__file__).parents[2] / "consumers" / name / "README.md").read_text()
    settings = [(info.alias or field).upper() for field, info in model.model_fields.items()]

    assert [each for each in settings if not re.search(rf"`{each}(=[a-z]+)?`", page)] == []


@pytest.mark.parametrize("content", [b"", b" \n", b"two words", b"two\nlines", "é".encode(), None])
def test_what_no_header_can_hold_is_no_token(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(TransientError, match=r"^no_token$") as caught:
        read_token(file, code="no_token")

    assert caught.value.systemic
    file.write_bytes(b"a-token\n")
    assert read_token(file, code="no_token") == "a-token"


def test_a_base_has_no_settings() -> None:
    with pytest.raises(ConfigError, match="has no setting 'a'"):
        read_options(Options, "desk", {"a": "1"})


@pytest.mark.parametrize(
    ("url", "server"),
    [
        ("https://me:hunter2@desk.test:8443/in?token=hunter2", "https://desk.test:8443"),
        ("http://[::1]:80/", "http://[::1]:80"),
        ("https://me:hunter/2@desk.test/in", UNNAMED),
        ("https://me:hunter#2@desk.test/in", UNNAMED),
        ("https://me:hunter?2@desk.test/in", UNNAMED),
        ("https://me:hunter[2@desk.test/in", UNNAMED),
        ("https:hunter2", UNNAMED),
        ("me:hunter2@desk.test", UNNAMED),
    ],
)
def test_of_a_url_nothing_is_shown_but_whose_it_is(url: str, server: str) -> None:
    assert server_of(url) == server
