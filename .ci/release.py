"""Write the files of a release: `python .ci/release.py VERSION DIRECTORY`.

All are made from the commit that is checked out, not from the files of the working tree: wheel, source archive, chart,
the lock of what the wheel needs, its bill of materials, a statement of provenance, and the checksums of all these. The
time in the archives is that of the commit, names are sorted, owners and modes fixed. So the same commit gives the same
bytes, with the same Python and the hatchling of the lock: the statement names both.
"""
# ruff: noqa: INP001 - a script of CI, not a package

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import platform
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
CHART = "helm/drx-bridge"
LOCK = "requirements.lock"
STATEMENT = "provenance.json"
SUMS = "SHA256SUMS"
# One entry of the lock: name and version, then the comment with the packages that require it.
_LOCKED = re.compile(
    r"^(\S+)==([^\s;]+).*\n(?:    --hash\S+(?: \\)?\n)+    # via((?: .*\n)|(?:\n    #   .*)+)", re.MULTILINE
)


def release(version: str, target: Path) -> None:
    """Write all files of a version into an empty directory."""
    commit, time = _git("show", "--no-patch", "--format=%H %ct", "HEAD").decode().split()
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        sys.exit(f"{target} is not empty: remove what is there")
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", "HEAD"))) as archive:
            archive.extractall(tree, filter="data")
        _refuse_another_version(tree, version)
        _wheel_and_source(tree, target, time)
        (target / f"drx-bridge-{version}.tgz").write_bytes(chart(tree / CHART, int(time)))
        lock = (tree / LOCK).read_bytes()
    (target / LOCK).write_bytes(lock)
    _write_json(target / f"drx-bridge-{version}.cdx.json", bill(version, lock.decode()))
    _write_json(target / STATEMENT, statement(version, commit, _sums(target)))
    (target / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in _sums(target).items()))


def _refuse_another_version(tree: Path, version: str) -> None:
    """Exit if the package or the chart of the commit has another version: the image has that of the package."""
    package = tomllib.loads((tree / "pyproject.toml").read_text())["project"]["version"]
    (of_chart,) = re.findall(r"^version: (\S+)$", (tree / CHART / "Chart.yaml").read_text(), re.MULTILINE)
    if {package, of_chart} != {version}:
        sys.exit(f"version {version}, but pyproject.toml has {package}, Chart.yaml {of_chart}")


def _wheel_and_source(tree: Path, target: Path, time: str) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "--directory", str(target.resolve())]
    env = os.environ | {"SOURCE_DATE_EPOCH": time}
    subprocess.run(command, cwd=tree, env=env, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - our own command line


def chart(folder: Path, time: int) -> bytes:
    """Return the archive of `helm package`, with a fixed time and the file order of Chart.yaml."""
    ignored = {line.rstrip("/") for line in (folder / ".helmignore").read_text().splitlines()}
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in files:
            name = path.relative_to(folder)
            if ignored.isdisjoint(name.parts):
                entry = tarfile.TarInfo(f"{folder.name}/{name.as_posix()}")
                entry.size, entry.mtime, entry.mode = path.stat().st_size, time, 0o644
                with path.open("rb") as file:
                    archive.addfile(entry, file)
    return gzip.compress(content.getvalue(), mtime=time)


def bill(version: str, lock: str) -> dict[str, Any]:
    """Return the wheel's locked dependencies on all platforms in CycloneDX, with their relations."""
    own = _purl("drx-bridge", version)
    locked = {name: _purl(name, at) for name, at, _ in _LOCKED.findall(lock)}
    if len(locked) != len(re.findall(r"^[a-z]", lock, re.MULTILINE)):
        sys.exit(f"an entry of {LOCK} is none that `uv pip compile` writes")
    wanted: dict[str, set[str]] = {purl: set() for purl in (own, *locked.values())}
    for name, _, via in _LOCKED.findall(lock):
        for each in re.findall(r"([a-z][\w.-]*)(?: \(pyproject\.toml\S*\))?\s*$", via, re.MULTILINE):
            wanted[locked.get(each, own)].add(locked[name])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": _component(own, "application")},
        "components": [_component(purl, "library") for purl in locked.values()],
        "dependencies": [{"ref": purl, "dependsOn": sorted(wanted[purl])} for purl in wanted],
    }


def _component(purl: str, kind: str) -> dict[str, str]:
    name, version = purl.removeprefix("pkg:pypi/").split("@")
    return {"type": kind, "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _purl(name: str, version: str) -> str:
    return f"pkg:pypi/{name}@{version}"


def statement(version: str, commit: str, sums: dict[str, str]) -> dict[str, Any]:
    """Return the in-toto statement of where these files come from, as provenance of SLSA 1.

    It has no time and no number of a run, which would make two builds differ. `RELEASE_BUILDER` is the URI of who
    builds and signs.
    """
    made_with = {"python": platform.python_version(), "hatchling": version_of("hatchling")}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": digest}} for name, digest in sums.items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:drx-bridge:make-release",
                "externalParameters": {"version": version},
                "internalParameters": made_with,
                "resolvedDependencies": [{"name": "drx-bridge", "digest": {"gitCommit": commit}}],
            },
            "runDetails": {"builder": {"id": os.environ.get("RELEASE_BUILDER", "urn:drx-bridge:by-hand")}},
        },
    }


def _sums(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(directory.iterdir())}


def _write_json(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n")


def _git(*arguments: str) -> bytes:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout  # noqa: S603, S607 - ours


if __name__ == "__main__":
    if len(sys.argv) != len(("program", "version", "directory")):
        sys.exit(__doc__)
    release(sys.argv[1], Path(sys.argv[2]))
