import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

ROOT = Path(__file__).parents[2]
FILES = ROOT / "helm" / "drx-bridge" / "files"
RULE_FILES = sorted((FILES / "rules").glob("*.yaml"))
RULES = {"groups": [group for path in RULE_FILES for group in yaml.safe_load(path.read_text())["groups"]]}
RUNBOOKS = sorted(path for path in (ROOT / "docs" / "runbooks").glob("*.md") if path.name != "README.md")
BOARDS = {path.name: json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))}
# Dashboards on PostgreSQL; all others query Prometheus.
SQL_BOARDS = {name: BOARDS[name] for name in ("prescription.json", "waits.json")}
DASHBOARDS = {name: board for name, board in BOARDS.items() if name not in SQL_BOARDS}
# Values that Grafana substitutes for its variables.
_GRAFANA = {"$__rate_interval": "5m", "$__range": "1h", "$namespace": ".*", "$service": ".*", "$source": ".*"}
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Query:
    where: str
    text: str


@dataclass(frozen=True, slots=True)
class Alert:
    name: str
    severity: str
    expr: str
    summary: str
    runbook: str


def alerts() -> list[Alert]:
    return [
        Alert(
            rule["alert"],
            rule["labels"]["severity"],
            rule["expr"],
            rule["annotations"]["summary"],
            rule["annotations"]["runbook_url"],
        )
        for group in RULES["groups"]
        for rule in group["rules"]
        if "alert" in rule
    ]


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in _BLOCK.findall(page.read_text()) if kind == language]


def queries() -> Iterator[Query]:
    for group in RULES["groups"]:
        for rule in group["rules"]:
            yield Query(rule.get("alert") or rule["record"], rule["expr"])
    for page in RUNBOOKS:
        for block in blocks(page, "promql"):
            for text in block.strip().split("\n\n"):
                yield Query(page.name, text)
    for name, board in DASHBOARDS.items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                yield Query(f"{name}: {panel['title']}", _filled(target["expr"]))
        for mark in board["annotations"]["list"]:
            yield Query(f"{name}: {mark['name']}", _filled(mark["expr"]))


def recorded() -> dict[str, set[str]]:
    """Name of each recorded series to the labels it has by its rule."""
    found: dict[str, set[str]] = {}
    for group in RULES["groups"]:
        for rule in group["rules"]:
            if "record" in rule:
                by = {label for inside in re.findall(r"by \(([^)]*)\)", rule["expr"]) for label in words(inside)}
                found.setdefault(rule["record"], set()).update(by, rule.get("labels", {}))
    return found


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))


def names(expression: str) -> set[str]:
    """Return the names in an expression: series, functions and labels, but not label values."""
    return set(re.findall(r"[a-zA-Z_][\w:]*", re.sub(r'"[^"]*"', "", expression)))


def _filled(expression: str) -> str:
    for variable, value in _GRAFANA.items():
        expression = expression.replace(variable, value)
    return expression
