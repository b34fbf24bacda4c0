"""The files of `make release`, and the workflows that publish them, as far as they run without a registry."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.chart.rendering import template
from tests.chart.test_image_files import VALIDATE
from tests.chart.tools import ROOT, helm, python

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TOOLS = f"{ROOT / 'build' / 'tools'}:{os.environ['PATH']}"


def run(*command: str, cwd: Path = ROOT, umask: int = -1, environ: dict[str, str] | None = None) -> str:
    env = os.environ | {"PATH": TOOLS} | (environ or {})
    ran = subprocess.run(  # noqa: S603 - our own command lines
        command, cwd=cwd, env=env, umask=umask, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


# A release is made from the commit, whatever stands in the working tree.
PROJECT = tomllib.loads(run("git", "show", "HEAD:pyproject.toml"))["project"]
VERSION = PROJECT["version"]


def build(target: Path, *, umask: int, **environ: str) -> Path:
    run(sys.executable, str(ROOT / ".ci" / "release.py"), VERSION, str(target), umask=umask, environ=environ)
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("release"), umask=0o022)


def test_a_second_build_gives_the_same_bytes(files: Path, tmp_path: Path) -> None:
    modes = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "tar.umask", "GIT_CONFIG_VALUE_0": "user"}
    again = build(tmp_path / "again", umask=0o077, TZ="Asia/Tokyo", LC_ALL="C", PYTHONHASHSEED="7", **modes)

    assert sorted(path.name for path in again.iterdir()) == sorted(path.name for path in files.iterdir())
    assert [path.name for path in again.iterdir() if path.read_bytes() != (files / path.name).read_bytes()] == []


def test_checksums_and_provenance_name_every_file(files: Path) -> None:
    sums = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files.iterdir()}
    del sums["SHA256SUMS"]
    assert (files / "SHA256SUMS").read_text() == "".join(f"{sums[name]}  {name}\n" for name in sorted(sums))

    del sums["provenance.json"]
    statement = json.loads((files / "provenance.json").read_text())
    assert {each["name"]: each["digest"]["sha256"] for each in statement["subject"]} == sums
    (source,) = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert source["digest"]["gitCommit"] == run("git", "rev-parse", "HEAD").strip()


def test_the_wheel_has_the_programs_and_the_schemas(files: Path) -> None:
    with zipfile.ZipFile(files / f"drx_bridge-{VERSION}-py3-none-any.whl") as wheel:
        folders = {name.split("/")[0] for name in wheel.namelist()}
        assert folders == {"bridge", "consumers", f"drx_bridge-{VERSION}.dist-info"}
        assert "bridge/schemas/schemas.lock.json" in wheel.namelist()


def test_the_chart_is_what_helm_would_package(files: Path, tmp_path: Path) -> None:
    chart = files / f"drx-bridge-{VERSION}.tgz"
    run("git", "archive", f"--output={tmp_path}/chart.tar", "HEAD:helm", "drx-bridge")
    folder = tmp_path / "drx-bridge"
    with tarfile.open(tmp_path / "chart.tar") as committed:
        committed.extractall(tmp_path, filter="data")
    run(helm(4), "package", str(folder), "--destination", str(tmp_path))

    with tarfile.open(chart) as ours, tarfile.open(tmp_path / chart.name) as theirs:
        assert sorted(ours.getnames()) == sorted(theirs.getnames())
    values = (folder / "ci" / "full-values.yaml").read_text()
    assert template(chart, values, major=4) == template(folder, values, major=4)


def test_the_bill_of_materials_is_that_of_the_lock(files: Path, tmp_path: Path) -> None:
    bill = (files / f"drx-bridge-{VERSION}.cdx.json").read_text()
    script = tmp_path / "validate.py"
    script.write_text(VALIDATE.replace("sys.stdin.read()", "open(sys.argv[1]).read()"))
    assert run(python(), str(script), str(files / f"drx-bridge-{VERSION}.cdx.json")).strip() == "valid"

    extras = PROJECT["optional-dependencies"]
    wanted = {re.split(r"[^\w-]", each)[0] for each in PROJECT["dependencies"] + extras["workflow"] + extras["xml"]}
    own = json.loads(bill)["dependencies"][0]["dependsOn"]
    assert {re.split("[/@]", each)[1] for each in own} == wanted


def test_a_version_that_the_commit_has_not_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / ".ci" / "release.py"), "9.9.9", str(tmp_path)]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line

    assert (ran.returncode, ran.stderr) == (
        1,
        f"version 9.9.9, but pyproject.toml has {VERSION}, Chart.yaml {VERSION}\n",
    )
    assert list(tmp_path.iterdir()) == []


def test_ci_runs_each_python_that_the_package_declares() -> None:
    (matrix,) = re.findall(r"python: \[(.*)\]", (ROOT / ".github" / "workflows" / "ci.yml").read_text())

    declared = [each.rpartition(" ")[2] for each in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", each)]
    assert matrix == ", ".join(f'"{each}"' for each in declared)


def test_actions_are_pinned_by_commit() -> None:
    used = re.findall(r"uses: (?!\./)(.*)", "".join(path.read_text() for path in WORKFLOWS))

    assert used
    assert [each for each in used if not re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", each)] == []


def test_what_is_signed_is_verified_and_nothing_else(files: Path, tmp_path: Path) -> None:
    cosign = shutil.which("cosign", path=TOOLS) or pytest.skip("cosign is missing: `make release-tools`, with Go")
    signed = Path(shutil.copytree(files, tmp_path / "release"))
    run(cosign, "generate-key-pair", cwd=tmp_path, environ={"COSIGN_PASSWORD": ""})
    # An empty configuration: nothing is written to a log of transparency, and no host is asked.
    run(cosign, "signing-config", "create", f"--out={tmp_path}/none.json")
    sign = f"--key {tmp_path}/cosign.key --signing-config {tmp_path}/none.json"
    run("make", "release-sign", f"RELEASE={signed}", f"SIGN={sign}", environ={"COSIGN_PASSWORD": ""})

    key = (f"--key={tmp_path}/cosign.pub", "--insecure-ignore-tlog")
    sums = (cosign, "verify-blob", *key, "--bundle=SHA256SUMS.sigstore.json", "SHA256SUMS")
    run(*sums, cwd=signed)
    kind = ("--type=slsaprovenance1", "--bundle=provenance.sigstore.json")
    wheel = f"drx_bridge-{VERSION}-py3-none-any.whl"
    attested = (cosign, "verify-blob-attestation", *key, *kind, wheel)
    run(*attested, cwd=signed)
    for command, file in ((sums, "SHA256SUMS"), (attested, wheel)):
        with (signed / file).open("ab") as changed:
            changed.write(b"\n")
        with pytest.raises(AssertionError, match=r"(?i)invalid|match|digest"):
            run(*command, cwd=signed)
