"""The values, their schema and their documentation agree."""

import re
from collections.abc import Iterator
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from docs.chart_page import NAMED, chart_readme, chart_schema, chart_values, leaves
from tests.chart.rendering import CHART, Values, load, render, with_what_excludes_it

LEAVES = dict(leaves())
DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
# Optional, and absent unless set: a default would mean something.
OF_A_NAME = [path for path in LEAVES if NAMED in path]


def has(values: Any, path: str) -> bool:
    name, _, rest = path.partition(".")
    return isinstance(values, dict) and name in values and (not rest or has(values[name], rest))


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value
    elif not isinstance(value, bool) and value is not None:
        yield f"{value:g}" if isinstance(value, float) else str(value)


def test_what_is_generated_is_in_step() -> None:
    made = {"README.md": chart_readme, "values.schema.json": chart_schema, "values.yaml": chart_values}

    assert [name for name, make in made.items() if (CHART / name).read_text() != make()] == []


def test_every_value_has_a_default_but_those_of_a_name_that_the_operator_chooses() -> None:
    assert [path for path in LEAVES if path not in OF_A_NAME and not has(DEFAULTS, path)] == []


def test_the_full_case_has_every_value() -> None:
    full = load("full")
    wanted = [path for path in LEAVES if NAMED not in path]
    wanted += [path.replace(NAMED, "drx") for path in OF_A_NAME if path.startswith("ingress.sources")]

    assert [path for path in wanted if not has(full, path)] == []


def test_what_the_full_case_sets_is_seen_in_what_is_rendered() -> None:
    """A value that no template reads would be seen here."""
    full = load("full")
    variants = [full, with_what_excludes_it(full)]
    rendered = "\n".join(render(each).text for each in variants)
    # What a template is filled in for, a word for whether, and what another value stands in the place of.
    unseen = {each for each in texts(full) if each not in rendered}

    assert unseen == {"always", "openshift-dns", "{{ .Release.Name }}", "{{ .Release.Namespace }}"}


def test_every_value_that_a_template_names_is_declared() -> None:
    """Another one would be empty whatever a site does, as the schema refuses to set it."""
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*.*"))
    named = set(re.findall(r"\.Values\.(\w[\w.]*\w)", templates))

    assert {path for path in named if not has(DEFAULTS, path)} == set()
