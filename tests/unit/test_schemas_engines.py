"""Statements and masks for other tools; `make engines` runs them in those tools."""

import json
import re

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own
from click.testing import CliRunner

from bridge.commands.schemas_engines import flink, masks
from bridge.registry.loader import schemas_root


def printed(command: object, *arguments: str) -> str:
    done = CliRunner().invoke(command, arguments, catch_exceptions=False)  # type: ignore[arg-type]
    assert done.exit_code == 0
    return done.output


def reader_schema(statement: str) -> dict[str, object]:
    found = re.search(r"'value.avro-confluent.schema' = '(.*)'", statement)
    assert found is not None
    schema: dict[str, object] = json.loads(found[1])
    return schema


def test_flink_reads_all_types_of_prescriptions_as_one_table() -> None:
    statement = printed(flink, "--bootstrap-servers", "b:1", "--registry", "http://r")
    columns = dict(re.findall(r"^  `(\w+)` ([A-Z].*?),?$", statement, re.MULTILINE))
    assert columns["occurred_at"] == "BIGINT"
    assert columns["fill_status"] == columns["event_type"] == "STRING"
    assert columns["quantity_dispensed"] == "DECIMAL(12, 3)"
    assert "`date_of_birth` DATE" in columns["patient"]
    assert "'topic' = 'drx.prescriptions.v1'" in statement
    assert reader_schema(statement)["name"] == "record"


def test_flink_leaves_out_what_differs_between_types_and_names_it() -> None:
    both = printed(flink, "renewal.responded", "cancel.responded")
    assert "-- without decision, whose type differs between renewal.responded, cancel.responded" in both
    assert "`decision`" not in both
    assert "`decision` STRING" in printed(flink, "renewal.responded")


def test_no_field_that_holds_health_information_anywhere_is_shown() -> None:
    texts = [path.read_text() for path in schemas_root().rglob("*.avsc")]
    classed = {name for text in texts for name in re.findall(r'"name": "(\w+)",[^{}]*"phi"', text)}
    assert len(classed) > 50
    filters = yaml.safe_load(printed(masks, "--for", "akhq"))["akhq"]["security"]["data-masking"]["json-filters"]
    assert {each["topic"] for each in filters} == {"drx.prescriptions.v1", "drx.accounts.v1", "drx.unrecognized.v1"}
    (kafbat,) = yaml.safe_load(printed(masks, "--for", "kafbat"))["masking"]
    for each in filters:
        assert not classed & set(each["keys"])
        assert not set(kafbat["fields"]) & set(each["keys"])
    # Of a record that is classed as a whole, each part is.
    assert classed - set(kafbat["fields"]) == {"address", "patient", "medication", "medication_dispensed"}
    assert {"line1", "last_name", "ndc"} <= set(kafbat["fields"])
    assert re.fullmatch(kafbat["topicKeysPattern"], "drx.unrecognized.v1")
