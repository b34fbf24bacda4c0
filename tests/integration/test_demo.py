"""`drx-bridge demo` as a newcomer runs it, and with a hop that is broken on purpose."""

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

pytestmark = pytest.mark.kafka

# Starting everything on a busy machine; it takes twenty seconds on an idle one.
TIMEOUT_S = 300.0


def run_demo(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bridge", "demo"],
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
        "83 checks, no difference",
    ):
        assert hop in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.process_iter() if marked(process, mark)] == []


@pytest.mark.faults
def test_broken_hops_are_named_and_end_it_with_1(tmp_path: Path) -> None:
    """A demo that cannot fail shows nothing; each difference is a line of the one list that makes it fail.

    The ingress fails to answer once, the read model dies at its second batch, and forward and archive leave fields out.
    """
    result = run_demo(
        tmp_path,
        COLUMNS="200",
        DRX_FAILPOINT="before_answer:error@2,batch_before_offset:kill@2",
        CONSUMER_FORWARD__PAYLOAD="ids",
        CONSUMER_ARCHIVE__COLUMNS="no_d",
    )

    assert result.returncode == 1, result.stdout + result.stderr
    for difference in (
        "accepted, after all in-sync replicas have it: found '",
        "PostgreSQL shows: sent: found [(1, 'draft')]",
        "each body says what DRx sent: found [",
        "the lake has each once, in Parquet: found [",
    ):
        assert difference in result.stdout
    assert " differences" in result.stdout
    assert list(tmp_path.iterdir()) == []


def marked(process: psutil.Process, mark: str) -> bool:
    """Say whether a process was started by the demo: its children have its environment."""
    try:
        return bool(process.environ().get("DEMO_TEST_MARK") == mark)
    except psutil.Error:
        return False
