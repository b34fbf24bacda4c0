"""How the read model is set up, and what its settings refuse."""

import re
from pathlib import Path

from prometheus_client import CollectorRegistry

from consumers.api import Consumer, Setup
from consumers.read_model.apply import ReadModelMetrics
from consumers.read_model.consumer import MIGRATIONS, open_read_model


def a_read_model(**options: str) -> Consumer:
    return open_read_model(Setup(options, CollectorRegistry()))


def test_a_type_that_only_a_newer_release_knows_waits() -> None:
    """Skipped, it would be missing from the history for ever."""
    assert a_read_model().unknown == "park"


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
