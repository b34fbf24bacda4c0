"""Write the bill of materials of an environment: `python docs/sbom.py` in it prints CycloneDX 1.6 on standard output.

Crates that are compiled into the library of a wheel are in it, if the wheel says so; maturin's do.

Only the standard library: it runs where nothing but the package and its dependencies is installed. There is no time and
no serial number in it, so the same environment gives the same bytes.
"""
# ruff: noqa: INP001 - a script next to its pages, not a package

import json
import re
import sys
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, distributions
from typing import Any

PACKAGE = "drx-bridge"


def bill() -> dict[str, Any]:
    """Return the document: the package and all other installed distributions."""
    found = {canonical(each.name): each for each in distributions()}
    found.pop(PACKAGE, None)
    known = {name: reference(each) for name, each in found.items()}
    own = distribution(PACKAGE)
    everything = [own, *(found[name] for name in sorted(found))]
    compiled = {reference(each): compiled_in(each) for each in everything}
    crates = {purl: crate for crates in compiled.values() for purl, crate in crates.items()}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": component(own, kind="application")},
        "components": [
            *(component(found[name], kind="library") for name in sorted(found)),
            *(crates[purl] for purl in sorted(crates)),
        ],
        "dependencies": [
            {
                "ref": reference(each),
                "dependsOn": sorted(
                    {known[name] for name in wanted(each) if name in known} | compiled[reference(each)].keys()
                ),
            }
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


def compiled_in(each: Distribution) -> dict[str, dict[str, Any]]:
    """Describe its bundled libraries by package URL, if it includes a bill of materials (PEP 770)."""
    found = {}
    for file in each.files or ():
        if file.parent.name != "sboms" or file.suffix != ".json":
            continue
        for part in json.loads(file.read_text()).get("components", ()):
            purl = part.get("purl")
            if purl:
                kept = {name: part[name] for name in ("type", "name", "version", "licenses", "purl") if name in part}
                found[purl] = {"bom-ref": purl} | kept
    return found


def reference(each: Distribution) -> str:
    """Return its package URL."""
    return f"pkg:pypi/{canonical(each.name)}@{each.version}"


def canonical(name: str) -> str:
    """Normalize a name as in package URLs."""
    return re.sub(r"[-_.]+", "-", name).lower()


def wanted(each: Distribution) -> Iterator[str]:
    """Return its requirements without extras, installed or not."""
    for requirement in each.requires or ():
        if "extra ==" not in requirement:
            yield canonical(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])


if __name__ == "__main__":
    json.dump(bill(), sys.stdout, indent=1)
