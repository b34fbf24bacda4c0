import re
from pathlib import Path

import pytest

from tests.metric_contract import PROMISES, SETS, queryable
from tests.monitoring.queries import Query, queries, recorded, words
from tests.promtool import complaints

QUERIES = list(queries())
# What Prometheus puts on every series of a scrape, and of a bucket.
OF_THE_SCRAPE = {"namespace", "pod", "container", "job", "instance", "endpoint", "le"}
_NAME = re.compile(r"\b(?:drxbridge[_:]|process_|python_)[\w:]*|\bALERTS\b")
# Prometheus' own, of the alerts that it has.
ALERTS = {"ALERTS": {"alertname", "alertstate", "severity"}}


def unfounded(text: str) -> set[str]:
    """Return the names in a query that no contract has, and the labels that none of its metrics has."""
    known = queryable() | recorded() | ALERTS
    bare = re.sub(r'"[^"]*"', '""', text)
    names = set(_NAME.findall(bare))
    assert names, text
    labels = set().union(*(known.get(name, set()) for name in names)) | OF_THE_SCRAPE
    used = {label for inside in re.findall(r"\{([^}]*)\}", bare) for label in re.findall(r"(\w+)\s*[=!]", inside)}
    for inside in re.findall(r"\b(?:by|without|on|ignoring|group_left|group_right) \(([^)]*)\)", bare):
        used |= words(inside)
    return (names - known.keys()) | (used - labels)


def test_prometheus_can_parse_every_query(tmp_path: Path) -> None:
    assert complaints([each.text for each in QUERIES], tmp_path) == ""


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.where)
def test_a_query_speaks_of_what_there_is(query: Query) -> None:
    assert unfounded(query.text) == set()


def test_what_every_process_has_is_asked_of_ours_alone() -> None:
    """A Prometheus has the processes of others too, in the same namespace."""
    shared = [each.text for each in QUERIES if re.search(r"\b(?:process|python)_", each.text)]

    assert shared
    assert [text for text in shared if "and on (namespace, instance) drxbridge_build_info" not in text] == []


def test_every_metric_is_asked_for_somewhere() -> None:
    """By a rule, a page or a dashboard; nobody looks at the others."""
    asked = {name for each in QUERIES for name in _NAME.findall(each.text)}

    assert [each.name for each in PROMISES if asked.isdisjoint(each.series)] == []


def closed_list(name: str, label: str) -> set[str]:
    """Return the values of a series' label; empty if they are open in any kind of process."""
    sets = [SETS[each.labels[label]] for each in PROMISES if name in each.series and label in each.labels]
    return {value for values in sets for value in values} if all(isinstance(each, list) for each in sets) else set()


def test_a_value_of_a_closed_list_is_one_of_it() -> None:
    """A misspelt word in a selector matches nothing and keeps an alert quiet for ever."""
    for query in QUERIES:
        for name, inside in re.findall(r"(drxbridge_\w+)\{((?:[^}\"]|\"[^\"]*\")*)\}", query.text):
            for label, value in re.findall(r'(\w+)\s*(?:=~|!~|!=|=)\s*"([^"]*)"', inside):
                known = closed_list(name, label)
                if known and value != ".*":
                    assert set(value.split("|")) <= known, (query.where, label, value)
