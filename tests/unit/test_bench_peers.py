"""The benchmark compares with Benthos where its program is there, in the words of the contract."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from rich.console import Console

from bridge.avro.schema_ids import RECORDS
from bridge.contract.common import Medication, NetworkStatus, Patient
from bridge.contract.fields import UNKNOWN, Record, plain, words_of
from bridge.contract.prescriptions import PrescriptionCreated, PrescriptionSent
from bridge.kafka.routing import PRESCRIPTIONS_TOPIC
from tests.bench.ingress import candidates
from tests.bench.servers import PEERS, benthos, find_benthos
from tests.bench.traffic import PATH, TYPES
from tests.originals import originals

CONFIGURATION = (PEERS / "benthos.yaml").read_text(encoding="utf-8")
PARSED = yaml.safe_load(CONFIGURATION)


def a_program(directory: Path, name: str) -> Path:
    program = directory / name
    program.touch(mode=0o755)
    return program


def names_and_words(monkeypatch: pytest.MonkeyPatch, *, path: Path, program: str) -> tuple[list[str], str]:
    """Return the candidates of the benchmark, and what it says about them."""
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("BENTHOS", program)
    said = io.StringIO()
    found = candidates(Console(file=said, width=200))
    return [each.name for each in found], said.getvalue()


def test_benthos_is_skipped_with_a_line_where_it_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names, said = names_and_words(monkeypatch, path=tmp_path, program="")
    assert "benthos" not in names
    assert said == "benthos: skipped, since BENTHOS names no program and the PATH has no `benthos`\n"


def test_benthos_takes_part_where_it_is_and_ours_is_soaked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(tmp_path, "benthos")
    names, said = names_and_words(monkeypatch, path=tmp_path, program="")
    assert "benthos" in names
    assert names[0] == "naive, signed"
    assert names[-1].startswith("bridge")
    assert said == ""


def test_the_variable_names_the_program_before_the_path(tmp_path: Path) -> None:
    a_program(tmp_path, "benthos")
    other = a_program(tmp_path, "other")
    assert find_benthos({"PATH": str(tmp_path)}) == str(tmp_path / "benthos")
    assert find_benthos({"PATH": str(tmp_path), "BENTHOS": str(other)}) == str(other)
    assert find_benthos({"PATH": str(tmp_path), "BENTHOS": str(tmp_path / "absent")}) is None
    assert find_benthos({}) is None


def test_the_configuration_is_given_every_variable_it_reads(tmp_path: Path) -> None:
    server = benthos("benthos", tmp_path, "127.0.0.1:9092")
    assert server.child._env is not None
    read = set(re.findall(r"\$\{([A-Z_]+)\}", CONFIGURATION))
    assert read
    assert read == {name for name in server.child._env if name.startswith("BENTHOS_")}


def test_the_configuration_serves_and_writes_where_the_benchmark_looks() -> None:
    assert PARSED["input"]["http_server"]["path"] == PATH
    output = PARSED["output"]["kafka_franz"]
    assert output["topic"] == PRESCRIPTIONS_TOPIC
    assert output["idempotent_write"] is True


def test_the_configuration_maps_every_type_of_the_traffic_to_its_record() -> None:
    said = dict(re.findall(r'"(\S+)" => "(drx\.v1\.\S+)"', CONFIGURATION))
    assert said == {each: RECORDS[each] for each in TYPES}


@pytest.mark.parametrize(
    ("model", "field"),
    [
        (Patient, "sex"),
        (Medication, "dea_schedule"),
        (NetworkStatus, "kind"),
        (PrescriptionCreated, "origin"),
        (PrescriptionCreated, "awaiting"),
        (PrescriptionSent, "delivery_mode"),
    ],
)
def test_the_configuration_knows_the_words_of_the_contract(model: type[Record], field: str) -> None:
    words = [each for each in words_of(plain(model.model_fields[field])) if each != UNKNOWN]
    assert json.dumps(words) in CONFIGURATION


def test_the_configuration_writes_the_headers_of_a_record_but_the_ordinal() -> None:
    original = next(iter(originals(1)[0]))
    headers = {name for name, _ in original.record.headers}
    patterns = PARSED["output"]["kafka_franz"]["metadata"]["include_patterns"]
    assert {name for name in headers if not any(re.search(each, name) for each in patterns)} == {"drx_ordinal"}
    made = set(re.findall(r'^ +meta "?([a-z0-9_-]+)"? =', CONFIGURATION, re.MULTILINE))
    assert headers - made == {"drx_ordinal"}
