"""What the chart makes of many sets of values, by one run of Helm: that starts once, and compiles the schema once."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests.chart.rendering import CHART, RefusedError, Values, merged, template

DEFAULTS: Values = yaml.safe_load((CHART / "values.yaml").read_text())
_PROBLEMS = "problems.yaml"
# Each template with one set after the other as its values; what has no problems is known by a sum.
_FOR_EACH = """\
verdicts:
{{- range .Values.sets }}
{{- $context := dict "Values" . "Chart" $.Chart "Release" $.Release "Files" $.Files "Capabilities" $.Capabilities }}
{{- $texts := list }}
{{- range $.Values.templates }}
{{- $texts = append $texts (include . $context) }}
{{- end }}
{{- $problems := include $.Values.problems $context | trim }}
- {{ default (join "\\n" $texts | sha256sum) $problems | toJson }}
{{- end }}
"""


def verdicts(sets: list[Values], *, major: int = 4) -> list[str]:
    """Return of each set why it is refused, or a sum over its render, which is another for every other render.

    Args:
        sets: Each what would stand in a file of values, without nulls.
        major: Version of Helm.
    """
    with tempfile.TemporaryDirectory() as scratch:
        chart = _chart_for_many(Path(scratch) / CHART.name)
        return _verdicts(chart, [merged(DEFAULTS, each) for each in sets], major)


def _verdicts(chart: Path, sets: list[Values], major: int) -> list[str]:
    try:
        text = template(chart, json.dumps({"sets": sets}), major=major)
    except RefusedError as exc:
        # One of them ends all: the schema refuses it, or a template cannot take it.
        if len(sets) == 1:
            return [str(exc)]
        half = len(sets) // 2
        return _verdicts(chart, sets[:half], major) + _verdicts(chart, sets[half:], major)
    found: list[str] = yaml.load(text, Loader=yaml.CSafeLoader)["verdicts"]
    return found


def _chart_for_many(chart: Path) -> Path:
    """Copy the chart so that each of its templates is one to be included: by its path, which begins with `_` then."""
    shutil.copytree(CHART, chart)
    names = {}
    for path in sorted((chart / "templates").rglob("*.yaml")):
        included = path.rename(path.with_name(f"_{path.name}"))
        names[path.relative_to(chart / "templates").as_posix()] = f"{CHART.name}/{included.relative_to(chart)}"
    problems = chart.parent / names.pop(_PROBLEMS)
    problems.write_text(problems.read_text().replace("fail (", "print ("))
    (chart / "templates" / "NOTES.txt").unlink()
    (chart / "templates" / "for-each.yaml").write_text(_FOR_EACH)
    values = {"templates": [*names.values()], "problems": f"{CHART.name}/{problems.relative_to(chart)}"}
    (chart / "values.yaml").write_text(json.dumps(values))
    schema = json.loads((CHART / "values.schema.json").read_text())
    of_all = {"$schema": schema.pop("$schema"), "definitions": schema.pop("definitions")}
    (chart / "values.schema.json").write_text(json.dumps({**of_all, "properties": {"sets": {"items": schema}}}))
    return chart
