"""The files of the image, as far as they can be checked without an engine; tests/docker builds and runs it."""

import json
import os
import re
import subprocess
import sys

from tests.chart.tools import ROOT, hadolint, python

DOCKERFILE = ROOT / "Dockerfile"
VALIDATE = """
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()) or "valid")
"""


def bill(**environ: str) -> str:
    command = [sys.executable, str(ROOT / "docs" / "sbom.py")]
    env = {**os.environ, **environ}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout  # noqa: S603 - our own


def test_hadolint_has_nothing_to_say() -> None:
    command = [hadolint(), str(DOCKERFILE)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line

    assert (result.returncode, result.stdout) == (0, "")


def test_everything_that_is_installed_is_locked_by_hash() -> None:
    text = DOCKERFILE.read_text().replace("\\\n", " ")
    installs = re.findall(r"pip (?:--python \S+ )?install ([^&]*)", text)

    assert len(installs) == 3
    # The last one is of the wheel that was built here, from nowhere else.
    assert ["--require-hashes" in each or "--no-index" in each for each in installs] == [True] * 3
    assert not text.startswith("# syntax")


def test_what_is_copied_is_let_into_the_context() -> None:
    lines = [line.split()[1:-1] for line in DOCKERFILE.read_text().splitlines() if line.startswith("COPY")]
    copied = {source for sources in lines if not sources[0].startswith("--") for source in sources}
    allowed = {line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"}

    assert copied == allowed


def test_the_version_is_that_of_the_package() -> None:
    (version,) = re.findall(r'^version = "(\S+)"$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    chart = (ROOT / "helm" / "drx-bridge" / "Chart.yaml").read_text()

    assert f"ARG VERSION={version}\n" in DOCKERFILE.read_text()
    assert f'appVersion: "{version}"\n' in chart


def test_the_bill_of_materials_is_one() -> None:
    text = bill()
    result = subprocess.run(  # noqa: S603 - our own command line
        [python(), "-c", VALIDATE], input=text, capture_output=True, text=True, check=False
    )

    assert result.stdout.strip() == "valid", result.stderr
    document = json.loads(text)
    references = {each["bom-ref"] for each in document["components"]}
    (own,) = (each for each in document["dependencies"] if each["ref"].startswith("pkg:pypi/drx-bridge@"))
    assert set(own["dependsOn"]) <= references
    assert any(each.startswith("pkg:pypi/aiokafka@") for each in own["dependsOn"])
