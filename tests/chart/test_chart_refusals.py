"""Values that cannot work, and that no pod could report, are refused with their name and a remedy."""

from collections.abc import Iterator
from functools import reduce
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests.chart.rendering import CHART, RefusedError, Values, changed, load, render

DIGEST = f"sha256:{'0' * 64}"
READER, DSN = "consumers.read_model", "consumers.read_model.postgres.existingSecret"
KEDA, DRAINED, MEMORY = f"{READER}.keda.enabled", "ingress.spool.drainClaims", "ingress.resources.limits.memory"
# Which case, what is changed in it, the value that is named, and the way out that is named with it.
REFUSED: list[tuple[str, dict[str, Any], str, str]] = [
    ("minimal", {"image.repository": ""}, "image.repository", "name the repository"),
    ("minimal", {"image.digest": ""}, "image.digest", "name the image by digest"),
    ("full", {"consumers.eligible.image": {"repository": "a"}}, "consumers.eligible.image.digest", "image.tag"),
    ("full", {"consumers.eligible.image.repository": ""}, "consumers.eligible.image.repository", "name the repository"),
    ("minimal", {f"{READER}.image": {"digest": DIGEST}}, f"{READER}.image.repository", "name the repository"),
    ("minimal", {"registry.url": "https://me:canary@registry"}, "registry.url", "credentialsSecret"),
    ("minimal", {"monitoring.alerts": {"SpoolStuk": {}}}, "monitoring.alerts.SpoolStuk", "SpoolInUse, "),
    ("strimzi", {"strimzi.namespace": "kafka"}, "strimzi.users", "copy Secrets"),
    ("strimzi", {"topicsJob.enabled": True}, "topicsJob.credentialsSecret", "may create topics"),
    ("strimzi", {f"{READER}.keda": {"enabled": True}}, KEDA, "clientCertificateSecret"),
    ("keda", {f"{READER}.hpa": {"enabled": True}}, KEDA, "set one of"),
    ("minimal", {KEDA: True, "kafka.tokenProvider": "iam:tokens"}, KEDA, "cannot use kafka.tokenProvider"),
    ("minimal", {DSN: "", f"{READER}.init": {"postgresSecret": "a"}}, DSN, "enabled to false"),
    ("minimal", {"ingress.spool.keySecret": ""}, "ingress.spool.keySecret", "name a Secret"),
    ("no-spool", {"ingress.spool.drainClaims": ["data-a-0"]}, "ingress.spool.keySecret", "drainClaims"),
    ("sandbox", {"ingress.spool.capacityBytes": 858993460}, "ingress.spool.volume.sizeGi", "enlarge the volume"),
    ("minimal", {DRAINED: ["data-drx-drx-bridge-ingress-2"]}, DRAINED, "lower ingress.replicas"),
    ("minimal", {"ingress.hpa": {"enabled": True}}, "ingress.hpa.enabled", "set ingress.replicas"),
    ("minimal", {"ingress.service": {"type": "NodePort"}}, "ingress.service.type", "ingress.http.tlsInFront"),
    ("ingress-class", {"ingress.kubernetesIngress.tlsSecret": ""}, "ingress.kubernetesIngress", "tlsSecret"),
    ("ingress-class", {"ingress.kubernetesIngress.host": ""}, "ingress.kubernetesIngress", "needs host"),
    ("minimal", {"ingress.dedupe": {"capacity": 20_000_000}}, MEMORY, "lower one of these"),
    ("minimal", {"ingress.resources": {"limits": {"memory": "360M"}}}, MEMORY, "at least 351Mi"),
]


def refused(case: str, changes: dict[str, Any], *, major: int) -> list[str]:
    """Return Helm's refusal, one problem a line."""
    values = reduce(lambda values, change: changed(values, *change), changes.items(), load(case))
    with pytest.raises(RefusedError) as caught:
        render(values, major=major)
    return [line.removeprefix("  - ") for line in str(caught.value).splitlines() if line.startswith("  - ")]


@pytest.mark.parametrize(("case", "changes", "named", "way_out"), REFUSED)
def test_what_cannot_work_is_refused_with_the_way_out(
    case: str, changes: dict[str, Any], named: str, way_out: str
) -> None:
    said = refused(case, changes, major=4)

    assert [each for each in said if each.startswith(f"{named}: ") and way_out in each], said
    assert "canary" not in "".join(said)


@pytest.mark.parametrize(
    ("case", "changes"),
    [
        ("minimal", {"image.digest": "", "image.tag": "1"}),
        ("minimal", {f"{READER}.image": {"repository": "a", "tag": "1"}}),
        ("minimal", {"ingress.resources": {"limits": {"memory": "351Mi"}}}),
        ("minimal", {"ingress.resources": {"limits": {"memory": "0.35Gi"}}}),
        ("sandbox", {"ingress.spool.capacityBytes": 858993459}),
        ("sandbox", {"ingress.spool": {"capacityBytes": 4 * 2**30, "volume": {"sizeGi": 5}, "keySecret": "a"}}),
        ("no-spool", {"ingress.spool.capacityBytes": 100 * 2**30}),
        ("strimzi", {"strimzi.namespace": "kafka", "strimzi.users": False, "topicsJob.enabled": True}),
        ("strimzi", {"topicsJob": {"enabled": True, "clientCertificateSecret": "drx-topics"}}),
        ("keda-plain", {"strimzi.cluster": "events"}),
    ],
)
def test_what_can_work_is_not_refused(case: str, changes: dict[str, Any]) -> None:
    assert render(reduce(lambda values, change: changed(values, *change), changes.items(), load(case))).objects


@pytest.mark.parametrize("major", [3, 4])
def test_all_problems_are_told_at_once(major: int) -> None:
    changes = {"image.digest": "", "ingress.spool.keySecret": "", DSN: ""}

    assert len(refused("minimal", changes, major=major)) == 3


@pytest.mark.parametrize("major", [3, 4])
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("ingres", {}),
        ("ingress.replica", 2),
        ("ingress.replicas", "2"),
        ("consumers.mine", {"option": {}}),
        ("consumers.much_too_long", {"name": "mine"}),
        ("consumers.mine", {"options": {"key_file": {"secret": "a", "claim": "b"}}}),
        ("consumers.mine", {"postgres": {"dsn": "postgresql://me:canary@db"}}),
        ("kafka.password", "canary"),
        ("ingress.sources", {"Drx": {"profile": "drx_standard", "environment": "sandbox", "existingSecret": "a"}}),
        ("ingress.sources.drx.environment", "test"),
        ("image.digest", "sha256:123"),
        # It would stand there twice.
        ("consumers.mine", {"podSpec": {"volumes": []}}),
        # Rates over minutes would have one value or none, and alerts would never fire.
        ("monitoring.intervalS", 61),
    ],
)
def test_a_value_that_is_no_value_is_refused_by_the_schema(path: str, value: Any, major: int) -> None:
    with pytest.raises(RefusedError, match="schema") as caught:
        render(changed(load("minimal"), path, value), major=major)

    assert "canary" not in str(caught.value)


def _defaults(values: Values, before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        yield f"{before}{name}", value
        if isinstance(value, dict):
            yield from _defaults(value, f"{before}{name}.")


DEFAULTS = dict(_defaults(yaml.safe_load((CHART / "values.yaml").read_text())))


def test_an_empty_default_that_is_taken_away_is_still_empty() -> None:
    """So is a key of values under which every line is a comment."""
    minimal = load("minimal")
    given = dict(_defaults(minimal))
    empty = [path for path, value in DEFAULTS.items() if value in ("", [], {}) and path not in given]

    assert render(reduce(lambda values, path: changed(values, path, None), empty, minimal)).text == render(minimal).text
