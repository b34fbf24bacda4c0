"""`drx-bridge demo` as a newcomer runs it, and with a hop that is broken on purpose."""

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.kafka

# Starting everything on a busy machine; it takes twenty seconds on an idle one.
TIMEOUT_S = 300.0
# The ingress gives Kafka two seconds before it spools.
FROZEN_S = 3.0


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
    for hop in (
        "accepted, after all in-sync replicas have it",
        "record             drx.prescriptions.v1/",
        "drx.v1.PrescriptionCreated",
        "PostgreSQL shows: delivered",
        "401, with a constant code",
        "nothing of it is in any topic",
        "202: DRx need not send it again",
        "it is in drx.unrecognized.v1, byte for byte",
        "Kafka has every event once, in order",
        "PostgreSQL has each, in order, and its place in the log",
        "the receiver has verified each, and each body says what DRx sent",
        "the lake has each once, in Parquet",
        "parks its key",
        "in the same partition, does not wait: processed",
        "poison  bad_magic",
        "all that waited is applied",
        "in the order in which it was sent",
        "nothing of it is parked any more",
        "the disk has each once, the repeat too",
        "stands in any file",
        "the spool is empty",
        "are in Kafka, each once, in the order in which they were sent",
        "which waited on the disk, is known",
        "its id with another body is kept apart",
        "it is among the other events of its prescription, with DRx's word",
        "PostgreSQL has it in the timeline",
        "acme    unknown_type",
        "1 accepted",
        "every consumer has applied it",
        "84 checks, no difference",
    ):
        assert hop in result.stdout
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


@pytest.mark.faults
def test_answers_of_a_slow_machine_are_no_difference(tmp_path: Path) -> None:
    """The broker freezes for longer than the ingress waits, and one answer is lost, so its delivery is repeated."""
    told = ""
    with subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "bridge", "demo", "--short", "--data-dir", str(tmp_path / "demo")],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1", "DRX_FAILPOINT": "before_answer:error@2"},
    ) as demo:
        assert demo.stdout is not None
        for line in demo.stdout:
            told += line
            if re.match(r"  [3-9]  \w+\.", line) and "202 spooled" not in told:
                freeze(tmp_path / "demo")

    assert demo.returncode == 0, told
    assert "200 duplicate, since this machine is slow" in told
    assert "202 spooled, since this machine is slow" in told
    assert "A poisoned record" not in told


def freeze(directory: Path) -> None:
    broker = psutil.Process(json.loads((directory / "endpoints.json").read_text())["pids"]["broker-1"])
    broker.suspend()
    try:
        time.sleep(FROZEN_S)
    finally:
        broker.resume()


def marked(process: psutil.Process, mark: str) -> bool:
    """Say whether a process was started by the demo: its children have its environment."""
    try:
        return bool(process.environ().get("DEMO_TEST_MARK") == mark)
    except psutil.Error:
        return False
