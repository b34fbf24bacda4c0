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
        "200 accepted",
        "drx.prescriptions.v1/",
        "drx.v1.PrescriptionCreated",
        "every field is what was sent",
        "in the order in which they were sent",
        "401 refused signature_mismatch",
        "nothing of it is in any topic",
        "202 parked malformed_json",
        "drx.unrecognized.v1/",
        "byte for byte",
        "the history has every event once, whole, in order",
        "all six machines and the word were what the story means",
        "the row is what the story ends with",
        "all 9 events have arrived, each once, in the order in which they were sent",
        "the receiver has verified each with its secret",
        "each body says what DRx sent, member for member",
        "of the forged and the broken delivery it got nothing",
        "received_date=",
        "all 9 events are there, each once",
        "each column says what the record says",
        "each row names the record that it is of",
        "its key is parked",
        "later in PostgreSQL: processed",
        "$ drx-consumer parked list read_model",
        "poison  bad_magic",
        "its row has stayed as it was: sent",
        "$ drx-consumer parked skip read_model rx_",
        "all that waited is applied: packed",
        "in the order in which it was sent",
        "nothing of the prescription is parked any more",
        "its next event is applied at once: dispensed",
        "no broker takes a connection",
        "202 spooled",
        "once more: 202 spooled",
        "the repeat is not written again",
        "$ drx-bridge spool status",
        "it holds 8 events",
        "none stands in any file",
        "the spool is empty",
        "are in Kafka, each once, in the order in which they were sent",
        "which waited on the disk, once more  →  200 duplicate",
        "202 parked id_conflict",
        "the way to Kafka is straight again",
        "108 checks, no difference",
    ):
        assert hop in result.stdout
    assert list(tmp_path.iterdir()) == []
    assert [process for process in psutil.process_iter() if marked(process, mark)] == []


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
        "prescription.sent: answer is (",
        "after event 2: events is 1, expected 2",
        "prescription.created: /data/patient differs",
        "prescription.created: patient differs",
    ):
        assert difference in result.stdout
    assert " differences in " in result.stdout
    assert list(tmp_path.iterdir()) == []


def marked(process: psutil.Process, mark: str) -> bool:
    """Say whether a process was started by the demo: its children have its environment."""
    try:
        return bool(process.environ().get("DEMO_TEST_MARK") == mark)
    except psutil.Error:
        return False
