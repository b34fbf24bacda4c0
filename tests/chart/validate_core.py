"""Validate objects against the schemas of Kubernetes: JSON on stdin, one error a line on stdout.

Runs in the environment of requirements-chart.lock, whose package kubernetes-validate has the schemas. That package's
function reads megabytes of definitions for each object; this one reads them once for each version.
"""

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from referencing import Registry, Resource


def _complaints(objects: list[tuple[str, dict[str, Any]]], version: str) -> Iterator[str]:
    found = importlib.util.find_spec("kubernetes_validate")
    assert found is not None
    assert found.origin is not None
    # Strict: fields outside the schema are errors.
    place = Path(found.origin).parent / "kubernetes-json-schema" / f"v{version}.0-local-strict"
    definitions = Resource.from_contents(json.loads((place / "_definitions.json").read_text()))
    # Crawled once: else it would be again for each object.
    registry: Any = Registry().with_resource("_definitions.json", definitions).crawl()
    for where, each in objects:
        group, _, api = each["apiVersion"].rpartition("/")
        name = "-".join(filter(None, (each["kind"].lower(), group.split(".")[0], api)))
        path = place / f"{name}.json"
        if not path.is_file():
            yield f"{where}: Kubernetes {version} has no {each['kind']} of {each['apiVersion']}"
            continue
        for error in Draft202012Validator(json.loads(path.read_text()), registry=registry).iter_errors(each):
            yield f"{where}: Kubernetes {version}: {'.'.join(map(str, error.absolute_path))}: {error.message[:300]}"


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    for each_version in asked["versions"]:
        for line in _complaints(asked["objects"], each_version):
            sys.stdout.write(f"{line}\n")
