import re
import shlex
from pathlib import Path

import click
import pytest

from bridge.cli import cli as bridge_cli
from consumers.cli import cli as consumers_cli
from tests.monitoring.queries import ROOT, RUNBOOKS, Alert, alerts, blocks, recorded

PROGRAMS: dict[str, click.Group] = {"drx-bridge": bridge_cli, "drx-consumer": consumers_cli}
SECTIONS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]
OPERATIONS = ROOT / "docs" / "operations.md"
COMMANDS = [
    (page.name, line)
    for page in (*RUNBOOKS, OPERATIONS)
    for block in blocks(page, "sh")
    for line in block.strip().split("\n")
]


def given(value: object) -> bool:
    """Tell whether click has found something; what it puts there else has changed between its versions."""
    return isinstance(value, str | bool) or (isinstance(value, tuple | list) and bool(value))


def understood(line: str) -> None:
    """Have click read a command line as the program would, but for files and values that stand for others."""
    program, *rest = shlex.split(line)
    command: click.Command = PROGRAMS[program]
    context = click.Context(command, info_name=program)
    while isinstance(command, click.Group):
        name, *rest = rest
        found = command.get_command(context, name)
        if found is None:
            msg = f"no such command: {name}"
            raise click.UsageError(msg)
        command, context = found, click.Context(found, info_name=name, parent=context)
    values, left, _ = command.make_parser(context).parse_args(list(rest))
    lacking = [each.name for each in command.params if each.required and not given(values.get(each.name or ""))]
    if left or lacking:
        msg = f"left over: {left}, lacking: {lacking}"
        raise click.UsageError(msg)


def test_every_alert_has_its_page_and_every_page_but_one_its_alert() -> None:
    assert {page.stem for page in RUNBOOKS} == {each.name for each in alerts()} | {"SpoolKeyLost"}
    assert {each.runbook for each in alerts()} == {f"docs/runbooks/{each.name}.md" for each in alerts()}


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_has_its_four_sections_and_leads_to_the_log(page: Path) -> None:
    text = page.read_text()

    assert text.startswith(f"# {page.stem}\n")
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == SECTIONS
    assert all(part.strip() for part in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:])
    assert blocks(page, "promql")
    assert "](README.md#show-the-log)" in text


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_tells_page_and_ticket_apart_where_its_rules_do_and_only_there(page: Path) -> None:
    severities = {each.severity for each in alerts() if each.name == page.stem}
    named = re.findall(r"(?:as a|the) (page|ticket):|\((page|ticket)\)", page.read_text(), re.IGNORECASE)

    assert {"".join(each) for each in named} == (severities if len(severities) > 1 else set())


@pytest.mark.parametrize(("page", "line"), COMMANDS)
def test_a_command_is_one_that_there_is(page: str, line: str) -> None:
    del page
    understood(line)


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: f"{alert.name}-{alert.severity}")
def test_a_summary_speaks_of_labels_that_the_alert_keeps(alert: Alert) -> None:
    summary, expression = alert.summary, alert.expr
    spoken = set(re.findall(r"\$labels\.(\w+)", summary))
    assert re.findall(r"{{ *\$value *}}", summary) == [], "a float as it is"

    # Prometheus fills a summary in from the labels of the query's result: those that the rule adds are not among them.
    kept = {word for inside in re.findall(r"by \(([^)]*)\)", expression) for word in re.findall(r"\w+", inside)}
    kept |= set().union(*(labels for name, labels in recorded().items() if name in expression))
    assert spoken <= kept
