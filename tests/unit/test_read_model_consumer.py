"""How the read model is set up, and what its settings refuse."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Consumer, Setup
from consumers.read_model.apply import ReadModelMetrics
from consumers.read_model.consumer import MIGRATIONS, open_read_model


def a_read_model(**options: str) -> Consumer:
    return open_read_model(Setup(options, CollectorRegistry()))


def test_a_type_that_only_a_newer_release_knows_waits() -> None:
    """Skipped, it would be missing from the history for ever."""
    assert a_read_model().unknown == "park"


@pytest.mark.parametrize(
    ("option", "given"),
    [
        ("schema", "Read Model"),
        ("schema", 'x"; drop'),
        ("schema", "drx_consumer"),
        ("schema", "x" * 64),
        ("alarms_from", "2026-09-14T15:00:00"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(option: str, given: str) -> None:
    with pytest.raises(ConfigError, match=f"read_model.{option}"):
        a_read_model(**{option: given})


PAGE = (Path(__file__).parents[2] / "consumers" / "read_model" / "README.md").read_text()


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
