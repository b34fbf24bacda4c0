"""Each set of values renders to its golden files with both Helms."""

import os
from pathlib import Path

import pytest

from tests.chart.rendering import CASES, changed, lint, load, render, with_what_excludes_it

GOLDEN = Path(__file__).parent / "golden"
# Set to write them anew; the difference is then reviewed like any other.
REWRITE = "CHART_GOLDEN"
NO_FILES = {"rules": "never", "dashboards": False}
ONE = {**changed(load("full"), "consumers.read_model", {"enabled": False}), "monitoring": NO_FILES}
# The least, all but what is a file of the chart, and the objects that it excludes: enough to see what a change changes.
GOLDEN_CASES = {
    "minimal": changed(load("minimal"), "monitoring.dashboards", False),  # noqa: FBT003 - a value
    "full": ONE,
    "others": changed(with_what_excludes_it(ONE), "monitoring.monitor", "ServiceMonitor"),
}
OTHERS = {"CronJob", "HorizontalPodAutoscaler", "Ingress", "KafkaTopic", "ServiceMonitor"}


def without_blank_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


# Both render each case (below), so Helm 3 need not lint them all.
@pytest.mark.parametrize(("case", "major"), [*((case, 4) for case in CASES), ("full", 3), ("strimzi", 3)])
def test_helm_has_nothing_to_say(case: str, major: int) -> None:
    code, said = lint(CASES[case], major=major)

    assert code == 0, said
    assert "WARNING" not in said
    assert "[INFO] Fail" not in said
    assert "funcMap fail" not in said


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_a_render_is_the_golden_one(case: str) -> None:
    golden = GOLDEN / f"{case}.yaml"
    text = render(GOLDEN_CASES[case]).text
    if case == "others":
        text = "---".join(each for each in text.split("---\n") if any(f"\nkind: {kind}\n" in each for kind in OTHERS))
    if os.environ.get(REWRITE):
        golden.write_text(text)

    assert text == golden.read_text(), f"another render than {golden}; with {REWRITE}=1 in the environment it is kept"


@pytest.mark.parametrize("case", CASES)
def test_both_helms_render_the_same(case: str) -> None:
    # Helm 4 ends a document by one more line.
    assert without_blank_lines(render(CASES[case], major=3).text) == without_blank_lines(render(CASES[case]).text)


def test_kinds_of_an_operator_are_made_where_the_cluster_knows_them() -> None:
    known = [f"monitoring.coreos.com/v1/{kind}" for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule")]
    minimal = CASES["minimal"]

    assert not render(minimal).all("PodMonitor")
    found = render(minimal, "--api-versions", ",".join(known))
    assert [len(found.all(kind)) for kind in ("PodMonitor", "ServiceMonitor", "PrometheusRule")] == [2, 0, 1]


def test_a_cluster_that_is_too_old_is_refused() -> None:
    with pytest.raises(Exception, match="kubeVersion"):
        render(CASES["minimal"], "--kube-version", "1.29.9")
