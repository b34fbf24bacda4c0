"""The chart installs as it says, and its pods have no more rights than they need."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.chart.tools import helm
from tests.integration.service_process import until
from tests.kubernetes.playing import timed
from tests.kubernetes.site import RELEASE, Release, Site

# How NOTES.txt prints what is to be run.
_COMMAND = re.compile(r"^  ((?:helm|kubectl|drx-bridge) .*)$", re.MULTILINE)


@pytest.mark.parametrize("major", [3, 4])
def test_a_trial_installs_and_its_notes_work_as_printed(site: Site, tmp_path: Path, major: int) -> None:
    with site.release(major=major) as release:
        reader = {"enabled": True, "replicas": 1, "postgres": {"existingSecret": "drx-read-model-postgres"}}
        reader["init"] = {"enabled": True}
        with timed(f"K1 install, Helm {major}", "a trial with the read model, until all pods are ready"):
            release.install(release.values(consumers__read_model=reader), "--wait")
        with timed(f"K1 notes, Helm {major}", "each command of NOTES.txt, as printed; `helm test` twice"):
            for _ in range(2):
                assert '"outcome":"accepted"' in release.helm("test", RELEASE, "--logs")
            # Without the Job, the notes say how to create the topics.
            values = release.values(consumers__read_model=reader, topicsJob__enabled=False)
            _run_notes(release, release.install(values).partition("\nNOTES:\n")[2], tmp_path, major)


def _run_notes(release: Release, notes: str, directory: Path, major: int) -> None:
    commands = _COMMAND.findall(notes)
    (directory / "helm").symlink_to(helm(major))
    environment = release.site.kubernetes.environment
    path = f"{directory}:{Path(sys.executable).parent}:{environment['PATH']}"
    shell: dict[str, Any] = {"cwd": directory, "env": {**environment, "PATH": path}}
    forwards = [each for each in commands if " port-forward " in each and not each.endswith("&")]
    assert len(forwards) == 2
    for each in forwards:
        with _running(each, **shell):
            until(lambda: _answers("http://127.0.0.1:9090/readyz"), what=each)
            assert b"drxbridge_" in urlopen("http://127.0.0.1:9090/metrics", timeout=30).read()
    others = [each for each in commands if each not in forwards]
    for word in ("helm test", "simulate", "topics create"):
        assert any(word in each for each in others), word
    script = "\n".join(["set -eo pipefail", "trap 'kill $(jobs -p)' EXIT", *others])
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, **shell)  # noqa: S603, S607
    assert done.returncode == 0, done.stdout + done.stderr
    assert "200 accepted" in done.stderr  # of `simulate`


@contextmanager
def _running(command: str, **shell: Any) -> Iterator[None]:
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], stdout=subprocess.DEVNULL, **shell)  # noqa: S603, S607
    try:
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def _answers(url: str) -> bool:
    try:
        return bool(urlopen(url, timeout=5).status == 200)  # noqa: S310 - http to ourselves
    except (URLError, ConnectionError, TimeoutError):
        return False


def test_pods_are_restricted(site: Site) -> None:
    """The namespace refuses any other pod; what is left is what a process may do in one that it admits."""
    look = (
        "import os, pathlib; status = pathlib.Path('/proc/self/status').read_text();"
        "print(os.getuid(), os.getgid(), [line.split()[1] for line in status.splitlines() if line[:6] == 'CapEff'],"
        " [line.split()[1] for line in status.splitlines() if line.startswith('NoNewPrivs')]);"
        "pathlib.Path('/opt/anything').touch()"
    )
    with (
        timed("K7", "Pod Security `restricted` enforced; user 10001, no capability, read-only root"),
        site.release() as release,
    ):
        release.install(release.values(), "--wait")
        with pytest.raises(RuntimeError, match='violates PodSecurity "restricted'):
            release.kubectl("run", "other", f"--image={site.own}", "--restart=Never")
        with pytest.raises(RuntimeError, match="Read-only file system") as refused:
            release.kubectl("exec", release.pods()[0], "--", "python", "-c", look)

        assert "10001 10001 ['0000000000000000'] ['1']" in str(refused.value)
