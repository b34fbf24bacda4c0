"""Every alert fires at its fault and no other does; what only comes near leaves all of them quiet."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from docs.monitoring.rules import alerts
from tests.monitoring.case import HOURLY, Case
from tests.monitoring.cases import cases
from tests.monitoring.queries import FILES, RULES, names
from tests.monitoring.series import healthy
from tests.promtool import promtool

Group = dict[str, Any]
CASES = cases()
FIRING = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'


def groups_for(case: Case) -> list[Group]:
    """Return the rules that the case is looked at by: those of one group, or all that its changes can alter.

    A rule that reads nothing that the case changes, also not by way of a recorded series, says the same as in the first
    case, which has all rules and no changes: nothing fires. What is left takes promtool a tenth of the time.
    """
    groups: list[Group] = RULES["groups"]
    if case.span.only:
        return [group for group in groups if group["name"] == case.span.only]
    if case.span != HOURLY or not case.changes:
        return groups
    read = _reached({name.partition("{")[0] for name in case.changes})
    kept = [
        group | {"rules": [rule for rule in group["rules"] if rule.get("record", rule.get("alert")) in read]}
        for group in groups
    ]
    return [group for group in kept if group["rules"]]


def _reached(changed: set[str]) -> set[str]:
    """Return the alerts that read one of these series, directly or by way of others, and all that they read."""
    reads: dict[str, set[str]] = {}
    for group in RULES["groups"]:
        for rule in group["rules"]:
            reads.setdefault(rule.get("record") or rule["alert"], set()).update(names(rule["expr"]))

    def sources(name: str) -> set[str]:
        return {name}.union(*map(sources, reads.get(name, ())))

    fired = {each.name for each in alerts()}
    return set().union(*(found for name in fired if changed & (found := sources(name))))


def unit_test(case: Case, rules: Path) -> dict[str, object]:
    """Write a case as promtool has it, and its rules into the file `rules`."""
    groups = groups_for(case)
    rules.write_text(json.dumps({"groups": groups}))
    samples, minutes = case.span.samples, case.span.minutes
    series = healthy(samples, minutes=minutes) | dict(case.changes)
    span = f"{minutes}m"
    wanted = [
        {"labels": f'{{alertname="{name}",severity="{severity}"}}', "value": 1} for name, severity in sorted(case.fires)
    ]
    return {
        "rule_files": [str(rules)],
        "evaluation_interval": span,
        # Else any order: what is recorded now would be seen at the next step, too late where those are far apart.
        "group_eval_order": [group["name"] for group in groups],
        "tests": [
            {
                "interval": span,
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": FIRING, "eval_time": f"{(samples - 1) * minutes}m", "exp_samples": wanted}
                ],
            }
        ],
    }


def test_the_rules_are_rules() -> None:
    done = promtool("check", "rules", str(FILES / "rules.yaml"))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_fires_is_what_should(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.json"
    file.write_text(json.dumps(unit_test(case, tmp_path / "rules.json")))
    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_for_each_urgency_and_one_where_it_is_quiet() -> None:
    fired = {each for case in CASES for each in case.fires}
    quiet = {case.name.partition(": quiet")[0] for case in CASES if ": quiet" in case.name}

    assert fired == {(each.name, each.severity) for each in alerts()}
    assert quiet == {each.name for each in alerts()}
