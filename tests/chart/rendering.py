"""The chart as Helm renders it: strings, objects, refusals."""

import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from docs.folders import Folder, folders
from tests.chart.tools import ROOT, helm

CHART = ROOT / "helm" / "drx-bridge"
FILES = {path.name.removesuffix("-values.yaml"): path for path in sorted((CHART / "ci").glob("*-values.yaml"))}
RELEASE, NAMESPACE = "drx", "pharmacy"
Object = dict[str, Any]
Values = dict[str, Any]


def of_consumer(folder: Folder) -> Values:
    """Return the example values of a consumer's folder."""
    logins = {"postgres": {"existingSecret": "drx-postgres"}, "kafka": {"credentialsSecret": "drx-kafka"}}
    values: Values = yaml.safe_load(FILES["consumers-only"].read_text())
    own = {**folder.read("chart.yaml")["example"], **logins, "enabled": True, "keda": {"enabled": True}}
    return {**values, "consumers": {"read_model": {"enabled": False}, folder.name: own}}


CASES: dict[str, Values] = {
    **{name: yaml.safe_load(path.read_text()) for name, path in FILES.items()},
    **{folder.name: of_consumer(folder) for folder in folders()},
}
"""Name to each set of values that must work."""


class RefusedError(Exception):
    """Helm refused to render; the message is Helm's."""


@dataclass(frozen=True)
class Rendered:
    text: str

    @cached_property
    def objects(self) -> list[Object]:
        """All objects, parsed once: copy them before a change."""
        # Ten times as fast as `safe_load_all`, which is in Python.
        return [each for each in yaml.load_all(self.text, Loader=yaml.CSafeLoader) if each]

    def all(self, kind: str) -> list[Object]:
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind: str, suffix: str = "") -> Object:
        """The only object of a kind whose name ends with this."""
        (found,) = (each for each in self.all(kind) if each["metadata"]["name"].endswith(suffix))
        return found

    def pods(self) -> Iterator[tuple[str, Object]]:
        for each in self.objects:
            name = f"{each['kind']}/{each['metadata']['name']}"
            if each["kind"] == "Pod":
                yield name, each
            elif "template" in each.get("spec", {}):
                yield name, each["spec"]["template"]


def render(values: Values, *options: str, major: int = 4) -> Rendered:
    """Render the chart, once for each set of values; raise `RefusedError` if Helm refuses."""
    return _kept(_as_text(values), options, major)


@cache
def _kept(values: str, options: tuple[str, ...], major: int) -> Rendered:
    return Rendered(template(CHART, values, *options, major=major))


def template(chart: Path, values: str, *options: str, major: int) -> str:
    arguments = (RELEASE, str(chart), "--namespace", NAMESPACE, "--values", "-")
    result = _run(major, "template", *arguments, *options, values=values)
    if result.returncode:
        raise RefusedError(result.stderr)
    return result.stdout


def _run(major: int, *arguments: str, values: str = "") -> subprocess.CompletedProcess[str]:
    # Garbage collection takes a quarter of its time; without it a render needs 140 MB, within a limit for many.
    env = os.environ | {"GOGC": "off", "GOMEMLIMIT": "400MiB", "GOMAXPROCS": "1"}
    return subprocess.run(  # noqa: S603 - our own command line
        [helm(major), *arguments], input=values, capture_output=True, text=True, check=False, env=env
    )


def notes(values: Values) -> str:
    text = _as_text(values)
    arguments = (RELEASE, str(CHART), "--namespace", NAMESPACE, "--values", "-", "--dry-run=client")
    result = _run(4, "install", *arguments, values=text)
    result.check_returncode()
    return result.stdout.partition("\nNOTES:\n")[2]


def lint(values: Values, *, major: int) -> tuple[int, str]:
    result = _run(major, "lint", "--strict", str(CHART), "--values", "-", values=_as_text(values))
    return result.returncode, result.stdout + result.stderr


def load(case: str) -> Values:
    copy: Values = json.loads(json.dumps(CASES[case]))
    return copy


def changed(values: Values, path: str, value: Any) -> Values:
    """Return a copy with one value set; dots separate nested keys."""
    copy: Values = json.loads(json.dumps(values))
    *way, last = path.split(".")
    inner = copy
    for name in way:
        inner = inner.setdefault(name, {})
    inner[last] = value
    return copy


def with_what_excludes_it(full: Values) -> Values:
    """Return the values with the other of two ways: an Ingress, no spool, an HPA, objects of Strimzi, pruning."""
    copy = json.loads(json.dumps(full))
    copy["ingress"]["httpRoute"]["enabled"] = False
    copy["ingress"]["kubernetesIngress"]["enabled"] = True
    copy["ingress"]["spool"] |= {"enabled": False, "drainClaims": []}
    copy["ingress"]["hpa"]["enabled"] = True
    copy["consumerDefaults"]["keda"]["enabled"] = False
    copy["consumerDefaults"]["hpa"]["enabled"] = True
    copy["topicsJob"]["enabled"] = False
    copy["prune"]["enabled"] = True
    copy["strimzi"] |= {"cluster": "events", "users": False}
    return dict(copy)


def merged(values: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """Merge values as Helm does: tables are merged, other values are replaced."""
    result = dict(values)
    for name, value in over.items():
        below = result.get(name)
        result[name] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return result


def _as_text(values: Values) -> str:
    # Helm reads it as YAML, whose escapes know no pairs of surrogates.
    text = json.dumps(values, ensure_ascii=False)
    return "".join(each if each < "\x7f" else f"\\U{ord(each):08x}" for each in text)


def variables(rendered: Rendered, pod: Object, *, pod_name: str) -> dict[str, str]:
    """Return the variables that a pod's container starts with; the kubelet takes `envFrom` first."""
    container = pod["spec"]["containers"][0]
    found: dict[str, str] = {}
    for source in container.get("envFrom", []):
        (config,) = (
            each for each in rendered.all("ConfigMap") if each["metadata"]["name"] == source["configMapRef"]["name"]
        )
        found |= {source.get("prefix", "") + key: value for key, value in config["data"].items()}
    for each in container.get("env", []):
        if "valueFrom" in each:
            assert each["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}, "nothing else is known here"
        found[each["name"]] = each.get("value", pod_name)
    return found
