"""The page of the metrics, from their contract."""
# ruff: noqa: INP001 - a script next to its pages, not a package

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.response_codes import PARKED, REFUSED, STATUS, UNAVAILABLE, proof_failures
from docs.folders import Folder, folders

PREFIX = "drxbridge_"
_FILE = Path(__file__).with_name("metrics.yaml")
_PROCESSES = {
    "ingress": "The ingress, `drx-bridge serve`",
    "consumer": "Every consumer, `drx-consumer run NAME`",
}
_TITLE = """# Metrics

`/metrics` on the management port serves text or OpenMetrics, depending on `Accept`. Labels have only the listed values,
and at most 51 if senders determine them. Durations are in seconds, sizes in bytes, times in Unix seconds. Histograms
are classic ones whose buckets include the thresholds of the objectives; Prometheus can store them as native histograms
with custom buckets (`convert_classic_histograms_to_nhcb`).

The alert rules are in [`files/rules`](../helm/drx-bridge/files/rules), rule files for any Prometheus; each alert
has [a runbook](runbooks/README.md).
"""


def contract(found: Sequence[Folder] | None = None) -> dict[str, Any]:
    """Return the contract from its file and from the folders of the consumers."""
    whole: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    whole["sets"] |= {
        "outcome": [*STATUS, "refused"],
        "response_code": ["", *sorted({*REFUSED, *UNAVAILABLE})],
        "proof": [*proof_failures()],
        "park_reason": [*PARKED],
    }
    for folder in folders() if found is None else found:
        own = folder.read("metrics.yaml") or {}
        whole["sets"] |= own.get("sets", {})
        whole["metrics"] += ({"process": folder.name, **each} for each in own.get("metrics", ()))
    return whole


def metrics_page(found: Sequence[Folder] | None = None) -> str:
    """Return the page."""
    whole = contract(found)
    parts = [_TITLE]
    ours = dict.fromkeys(each["process"] for each in whole["metrics"])
    titles = _PROCESSES | {name: f"In addition, the consumer `{name}`" for name in ours if name not in _PROCESSES}
    for process, title in titles.items():
        rows = [_row(each) for each in whole["metrics"] if each["process"] == process]
        parts.append(
            f"## {title}\n\n| metric | type | unit | labels | meaning |\n|---|---|---|---|---|\n{''.join(rows)}"
        )
    sets = "".join(f"| {name} | {_values(values)} |\n" for name, values in whole["sets"].items())
    parts.append(f"## Values of labels\n\n| set | values |\n|---|---|\n{sets}")
    libraries = ", ".join(f"`{name}`" for name in whole["libraries"])
    parts.append(f"## From the client library\n\nEvery process has {libraries}, without the prefix.\n")
    absent = "".join(f"- `{each['name']}`: {each['why']}\n" for each in whole["absent"])
    parts.append(f"## Metrics that do not exist, and why\n\n{absent}")
    return "\n".join(parts)


def _row(metric: dict[str, Any]) -> str:
    labels = ", ".join(
        f"`{label}`" if label == values else f"`{label}` ({values})"
        for label, values in metric.get("labels", {}).items()
    )
    name = f"`{PREFIX}{metric['name']}`"
    return f"| {name} | {metric['type']} | {metric['unit']} | {labels or 'none'} | {metric['meaning']} |\n"


def _values(values: str | list[str]) -> str:
    return values if isinstance(values, str) else ", ".join(f"`{value}`" if value else "none" for value in values)
