"""Every alert fires at its fault and no other does; what only comes near leaves all of them quiet."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from docs.monitoring.rules import alerts
from tests.monitoring.case import Case
from tests.monitoring.cases import cases
from tests.monitoring.series import healthy
from tests.promtool import promtool

RULES = Path(__file__).parents[2] / "helm" / "drx-bridge" / "files" / "rules.yaml"
CASES = cases()
FIRING = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'


def rules_for(case: Case, directory: Path) -> Path:
    """Return a file with the rules that the case is looked at by."""
    if not case.span.only:
        return RULES
    groups = [group for group in yaml.safe_load(RULES.read_text())["groups"] if group["name"] == case.span.only]
    assert groups
    file = directory / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": groups}))
    return file


def unit_test(case: Case, rules: Path) -> dict[str, object]:
    """Write a case as promtool has it."""
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
        "group_eval_order": [group["name"] for group in yaml.safe_load(rules.read_text())["groups"]],
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
    done = promtool("check", "rules", str(RULES))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_fires_is_what_should(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.yaml"
    file.write_text(yaml.safe_dump(unit_test(case, rules_for(case, tmp_path))))
    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_for_each_urgency_and_one_where_it_is_quiet() -> None:
    fired = {each for case in CASES for each in case.fires}
    quiet = {case.name.partition(": quiet")[0] for case in CASES if ": quiet" in case.name}

    assert fired == {(each.name, each.severity) for each in alerts()}
    assert quiet == {each.name for each in alerts()}
