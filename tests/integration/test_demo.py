import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.kafka

# Starting everything on a busy machine; it takes twenty seconds on an idle one.
TIMEOUT_S = 300.0


def run_demo(directory: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "bridge", "demo", *options],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, "TMPDIR": str(directory), **environment},
    )


def test_the_tour_shows_and_checks_every_hop_and_leaves_nothing_behind(tmp_path: Path) -> None:
    mark = f"demo-test-{os.getpid()}"
    result = run_demo(tmp_path, DEMO_TEST_MARK=mark)

    assert result.returncode == 0, result.stdout + result.stderr
    assert "✗" not in result.stdout
    assert "84 checks, no difference" in result.stdout
    parts = re.findall(r"^(\d+) +\S.*  (\d+) +0 +\d+ *$", result.stdout, re.MULTILINE)
    assert [number for number, _ in parts] == [str(number) for number in range(1, 11)]
    assert sum(int(checks) for _, checks in parts) == 84
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.process_iter() if marked(process, mark)] == []


@pytest.mark.faults
def test_a_broken_hop_is_named_and_ends_it_with_1(tmp_path: Path) -> None:
    """A demo that cannot fail shows nothing; the read model dies at its second batch."""
    result = run_demo(tmp_path, "--short", COLUMNS="200", DRX_FAILPOINT="batch_before_offset:kill@2")

    assert result.returncode == 1, result.stdout + result.stderr
    assert "PostgreSQL shows: sent: found [(1, 'draft')]" in result.stdout
    assert re.search(r"checks, [1-9]\d* differences", result.stdout)
    assert list(tmp_path.iterdir()) == []


def marked(process: psutil.Process, mark: str) -> bool:
    """Say whether a process was started by the demo: its children have its environment."""
    try:
        return bool(process.environ().get("DEMO_TEST_MARK") == mark)
    except psutil.Error:
        return False
