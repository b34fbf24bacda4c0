import json
import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.monitoring.cases import DOWN, HOUR, PAGE, Case, Span, cases
from tests.monitoring.queries import RULE_FILES, RULES, alerts, names
from tests.monitoring.series import FRESHNESS, POSTS, ages, flat, healthy, rising
from tests.promtool import promtool

Group = dict[str, Any]
Rule = dict[str, Any]
CASES = cases()
ALL: dict[int, Rule] = {id(rule): rule for group in RULES["groups"] for rule in group["rules"]}
# Minutes that are looked at after an outage.
AFTER = 26
FIRING = 'group by (alertname, severity) (ALERTS{alertstate="firing"})'


def groups_for(case: Case) -> list[Group]:
    """Return the rules of a case: those of one group, or all that its changes can affect.

    A rule that reads nothing that the case changes, also not by way of a recorded series, says the same as at that time
    in a case that has all rules and no changes: nothing fires. What is left takes promtool a tenth of the time.
    """
    groups: list[Group] = RULES["groups"]
    if case.span.only:
        return [group for group in groups if group["name"] == case.span.only]
    if not case.changes:
        return groups
    read = _reached({name.partition("{")[0] for name in case.changes})
    kept = [group | {"rules": [rule for rule in group["rules"] if id(rule) in read]} for group in groups]
    return [group for group in kept if group["rules"]]


def _reached(changed: set[str]) -> set[int]:
    """Return the ids of the alerts that read one of these series, also by way of others, and of all that they read."""
    found: set[int] = set()
    for rule in ALL.values():
        way = {id(rule), *_sources(id(rule))}
        if "alert" in rule and changed & set().union(*(names(ALL[each]["expr"]) for each in way)):
            found |= way
    return found


@cache
def _sources(rule: int) -> frozenset[int]:
    """Return the rules whose series a rule reads, directly or by way of others."""
    direct = {number for number, other in ALL.items() if "record" in other and _reads(ALL[rule]["expr"], other)}
    return frozenset(direct.union(*map(_sources, direct)))


def _reads(expression: str, rule: Rule) -> bool:
    """Tell whether an expression reads what a rule records: of series of one name, those of the objective asked for."""
    asked = re.findall(rf'\b{rule["record"]}(?![\w:])(?:{{[^}}]*?\bslo=~?"([^"]*)")?', expression)
    return any(not slo or re.fullmatch(slo, rule["labels"]["slo"]) for slo in asked)


def ends(case: Case) -> set[int]:
    """Return when a case is looked at, as numbers of samples: without changes also where each other one is."""
    others = CASES if not case.changes else [case]
    return {each.span.samples for each in others if each.span.minutes == case.span.minutes and not each.span.only}


def unit_test(case: Case, rules: Path) -> dict[str, object]:
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
                    {"expr": FIRING, "eval_time": f"{(end - 1) * minutes}m", "exp_samples": wanted}
                    for end in ends(case)
                ],
            }
        ],
    }


def test_the_rules_are_rules() -> None:
    done = promtool("check", "rules", *map(str, RULE_FILES))

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_fires_is_what_should(case: Case, tmp_path: Path) -> None:
    file = tmp_path / "test.json"
    file.write_text(json.dumps(unit_test(case, tmp_path / "rules.json")))
    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


def outage(kind: str, minutes: int) -> dict[str, str]:
    """An hour of health, an outage, and health for a while, scraped once a minute."""
    ends, after = HOUR + minutes, AFTER
    paused = f"{rising(60, HOUR)} {flat(60 * (HOUR - 1), minutes)} {rising(60, after, start=60 * HOUR)}"
    if kind == "refused":
        lost = f"{flat(0, HOUR)} {rising(60, minutes, start=60)} {flat(60 * minutes, after)}"
        return {f'{POSTS}"accepted"}}': paused, DOWN: lost}
    # All that was held up is applied in the first minute after it, and late.
    applied = f"{rising(60, HOUR)} {flat(60 * (HOUR - 1), minutes)} {rising(60, after, start=60 * ends)}"
    every = rising(60, ends + after) if kind == "late" else applied
    return {FRESHNESS.format(part="count") + "}": every, ages("5.0"): paused, ages("60.0"): paused}


@pytest.mark.parametrize("minutes", [4, 20, 60])
@pytest.mark.parametrize("kind", ["refused", "late", "held up"])
def test_a_budget_pages_while_an_outage_lasts_and_not_ten_minutes_after_it(
    kind: str, minutes: int, tmp_path: Path
) -> None:
    name = "IngressErrorBudgetBurnFast" if kind == "refused" else "FreshnessBurnFast"
    ends = HOUR + minutes
    case = Case(kind, outage(kind, minutes), frozenset({(name, PAGE)}), Span(ends + AFTER))
    written: dict[str, Any] = unit_test(case, tmp_path / "rules.json")
    budget = f'group by (alertname, severity) (ALERTS{{alertstate="firing",alertname="{name}"}})'
    (test,) = written["tests"]
    (asked,) = test["promql_expr_test"]
    during = {**asked, "expr": budget, "eval_time": f"{ends - 1}m"}
    test["promql_expr_test"] = [
        *([during] if kind != "held up" else []),
        *({**during, "eval_time": f"{ends + later}m", "exp_samples": []} for later in range(9, AFTER, 4)),
    ]
    file = tmp_path / "test.json"
    file.write_text(json.dumps(written))
    done = promtool("test", "rules", str(file))

    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case_for_each_urgency_and_one_where_it_is_quiet() -> None:
    fired = {each for case in CASES for each in case.fires}
    quiet = {case.name.partition(": quiet")[0] for case in CASES if ": quiet" in case.name}

    assert fired == {(each.name, each.severity) for each in alerts()}
    assert quiet == {each.name for each in alerts()}
