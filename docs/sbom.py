"""Write what an environment is made of: `python docs/sbom.py` in it prints CycloneDX 1.6 on standard output.

Only the standard library: it runs where nothing but the package and its dependencies is installed. There is no time and
no serial number in it, so the same environment gives the same bytes.
"""
# ruff: noqa: INP001 - a script beside its pages, no package

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from typing import Any

PACKAGE = "drx-bridge"


def bill() -> dict[str, Any]:
    """Return the document: the package, and everything else that is installed."""
    found = {canonical(each.name): each for each in distributions()}
    found.pop(PACKAGE, None)
    known = {name: reference(each) for name, each in found.items()}
    own = distribution(PACKAGE)
    everything = [own, *(found[name] for name in sorted(found))]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(own, kind="application")},
        "components": [component(found[name], kind="library") for name in sorted(found)],
        "dependencies": [
            {"ref": reference(each), "dependsOn": sorted({known[name] for name in wanted(each) if name in known})}
            for each in everything
        ],
    }


def component(each: Distribution, *, kind: str) -> dict[str, Any]:
    """Describe one distribution."""
    said = {
        "type": kind,
        "bom-ref": reference(each),
        "name": canonical(each.name),
        "version": each.version,
        "purl": reference(each),
    }
    expression = each.metadata.get("License-Expression")
    return said | ({"licenses": [{"expression": expression}]} if expression else {})


def reference(each: Distribution) -> str:
    """Return its package URL."""
    return f"pkg:pypi/{canonical(each.name)}@{each.version}"


def canonical(name: str) -> str:
    """Spell a name as package URLs do."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(each: Distribution) -> Iterator[str]:
    """Name what it requires without extras; whether it is installed says the caller."""
    for requirement in each.requires or ():
        if "extra ==" not in requirement:
            yield canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
