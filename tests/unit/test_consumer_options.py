"""A consumer's settings: read once, no unknown names, and no values in errors."""

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError, TransientError
from consumers.api import Consumer, Setup
from consumers.archive.consumer import open_archive
from consumers.fhir.consumer import open_fhir
from consumers.fhir.options import FhirOptions
from consumers.forward.consumer import open_forward
from consumers.hl7v2.consumer import open_hl7v2
from consumers.options import UNNAMED, read_options, read_token, server_of
from consumers.read_model.consumer import open_read_model
from consumers.read_model.options import ReadModelOptions
from consumers.workflow.consumer import open_workflow
from docs.settings_page import options_of

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
        ("archive", {"columns": "hashed"}, "set hash_key_file if columns=hashed, and only then"),
        ("archive", {"hash_key_file": "/etc/hostname"}, "set hash_key_file if columns=hashed, and only then"),
        ("archive", {"root": "lake"}, "archive.root"),
        ("archive", {"root": "s3://key:hunter2@lake"}, "archive.root"),
        ("archive", {"root": "s3://lake?endpoint_override=localhost"}, "archive.root"),
        ("archive", {"root": "s3://lake", "endpoint": "http://minio.test"}, "archive"),
        ("archive", {"root": "s3://lake", "endpoint": "https://me:hunter2@m.test", "allow_http": "true"}, "archive"),
        ("archive", {"endpoint": "https://minio.test"}, "endpoint applies only to a root of s3"),
        ("archive", {"raw": "true", "columns": "no_d"}, "raw=true needs columns=all"),
        ("archive", {"schema": "drx_consumer"}, "archive.schema"),
        ("archive", {"topics": "drx.unrecognized.v1"}, "is read with raw=true"),
        ("archive", {"iceberg": "true"}, "iceberg"),
        ("fhir", {"base_url": ""}, "fhir.base_url"),
        ("fhir", {"instance": "Not-One"}, "fhir.instance"),
        ("fhir", {"instance": "ehr_2"}, "fhir.instance"),  # its schema would be that of ehr-2
        ("fhir", {"references": "literal"}, "fhir.references"),
        ("fhir", {"smart_client_id": "drx"}, "smart_token_url, smart_client_id and smart_key_file belong together"),
        *(("fhir", {"mrn_system": system}, "fhir.mrn_system") for system in ("our mrn", "mrn", "urn:our mrn")),
        ("fhir", {"identifier_base": "urn:drx"}, "fhir.identifier_base"),
        ("forward", {"url": ""}, "forward.url"),
        ("forward", {"url": "https://a.example/?b", "path": "/c"}, "path cannot follow a URL with a query"),
        ("forward", {"accounts": " , "}, "forward.accounts"),
        ("forward", {"types": " , "}, "forward.types"),
        ("forward", {"when": "data.["}, "forward.when"),
        *(("hl7v2", {name: "0"}, f"hl7v2.{name}") for name in ("port", "ack_mode", "ack_timeout_s", "no_patient")),
        ("hl7v2", {"port": "65536"}, "hl7v2.port"),
        *(("hl7v2", {"assigner": name}, "hl7v2.assigner") for name in ("A^B", "A\\B", "A\x07", "A" * 21)),
        *(("hl7v2", {"timezone": zone}, "hl7v2.timezone") for zone in ("Mars/Base", "../UTC", "America")),
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


def test_what_is_missing_is_named_with_its_variable() -> None:
    with pytest.raises(ConfigError, match=r"^desk-2\.base_url is missing: set CONSUMER_DESK_2__BASE_URL$"):
        read_options(FhirOptions, "desk-2", {})


def test_a_time_has_its_zone() -> None:
    read = read_options(ReadModelOptions, "read_model", {"alarms_from": "2026-09-14T17:00:00+02:00"})

    assert read.alarms_from == datetime(2026, 9, 14, 15, tzinfo=UTC)


@pytest.mark.parametrize("name", OPENED)
def test_the_page_of_a_consumer_names_every_setting(name: str) -> None:
    """What a setting does stands there, or on the page of what several have."""
    page = (Path(__file__).parents[2] / "consumers" / name / "README.md").read_text()
    settings = [(info.alias or field).upper() for field, info in options_of(name).model_fields.items()]

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
