"""How the read model is set up, and what its settings refuse."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Batches, Consumer, Setup
from consumers.read_model.consumer import MIGRATIONS, open_read_model
from consumers.read_model.metrics import ReadModelMetrics
from consumers.read_model.options import ReadModelOptions


def a_read_model(**options: str) -> Consumer:
    return open_read_model(Setup(options, CollectorRegistry()))


def test_by_default_it_reads_both_event_topics_into_the_schema_of_its_name() -> None:
    consumer = a_read_model()

    assert (consumer.name, consumer.group, consumer.topics) == (
        "read_model",
        "read_model",
        ("drx.prescriptions.v1", "drx.accounts.v1"),
    )
    assert consumer.tables is not None
    assert (consumer.tables.schema, consumer.tables.migrations) == ("read_model", MIGRATIONS)
    assert consumer.mode == Batches(records=1000)
    assert consumer.handle is not None
    assert [job.every_s for job in consumer.jobs] == [60.0]


def test_another_schema_is_a_group_of_its_own() -> None:
    consumer = a_read_model(schema="read_model_2")

    assert consumer.tables is not None
    assert (consumer.group, consumer.tables.schema) == ("read_model.read_model_2", "read_model_2")


def test_a_type_that_only_a_newer_release_knows_waits() -> None:
    """Skipped, it would be missing from the history for ever."""
    assert a_read_model().unknown == "park"


def test_topics_can_be_set() -> None:
    assert a_read_model(topics="drx.prescriptions.v1, epcs").topics == ("drx.prescriptions.v1", "epcs")


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("schema", "Read Model"),
        ("schema", 'x"; drop'),
        ("schema", "pg_x"),
        ("schema", "drx_consumer"),
        ("schema", "x" * 64),
        ("schema", ""),
        ("topics", " , "),
        ("alarms_from", "yesterday"),
        ("alarms_from", "2026-09-14T15:00:00"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(option: str, given: str) -> None:
    with pytest.raises(ConfigError, match=f"read_model.{option}"):
        a_read_model(**{option: given})


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="no setting 'shema'"):
        a_read_model(shema="x")


def test_it_is_installed_under_its_name() -> None:
    (point,) = entry_points(group="drx_bridge.consumers", name="read_model")

    assert point.load() is open_read_model


PAGE = (Path(__file__).parents[2] / "consumers" / "read_model" / "README.md").read_text()


@pytest.mark.parametrize("option", [info.alias or name for name, info in ReadModelOptions.model_fields.items()])
def test_the_page_names_every_setting(option: str) -> None:
    assert f"`{option.upper()}`" in PAGE


def test_the_page_names_every_metric() -> None:
    registry = CollectorRegistry()
    ReadModelMetrics(registry)

    families = [(family.name, family.type) for family in registry.collect()]
    names = [f"drxbridge_{name.removeprefix('drxbridge_')}{'_total' * (kind == 'counter')}" for name, kind in families]
    assert [name for name in names if f"`{name}" not in PAGE] == []


def test_the_page_names_every_view_and_role() -> None:
    made = re.findall(r"create view \{schema\}\.(\w+)", (MIGRATIONS / "0002_views.sql").read_text())
    roles = set(re.findall(r"'(drx_\w+)'", (MIGRATIONS / "0003_roles.sql").read_text()))

    assert [name for name in (*made, *roles) if f"`{name}`" not in PAGE] == []
