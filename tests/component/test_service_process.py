"""A process that a test starts ends with the test, and a failure shows what it has written."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.integration.dev_process import gone
from tests.integration.service_process import LAST_LINES, ServiceProcess, until

STARTS = """
import sys, time
from pathlib import Path
from tests.forked import Forked
here = Path(sys.argv[1])
command = [sys.executable, "-m", "sleeper"]
print(Forked(command, {"PYTHONPATH": str(here)}, (here / "stdout", here / "stderr")).pid, flush=True)
time.sleep(600)
"""
WRITES = "import sys; [print(number) for number in range(1_000)]; print('complaint', file=sys.stderr)"


def fail_beside_a_process(*outputs: Path) -> None:
    command = [sys.executable, "-c", WRITES]
    with ServiceProcess(command, {}, outputs=(outputs[0], outputs[1]), management_url="") as process:
        process.ended()
        raise LookupError


def test_a_failure_tells_the_end_of_what_a_process_has_written_and_where_it_is(tmp_path: Path) -> None:
    out, err = tmp_path / "stdout", tmp_path / "stderr"

    with pytest.raises(LookupError) as caught:
        fail_beside_a_process(out, err)

    last = map(str, range(1_000 - LAST_LINES, 1_000))
    told = [note.splitlines() for note in caught.value.__notes__]
    assert told == [[f"the end of {out}:", *last], [f"the end of {err}:", "complaint"]]


@pytest.mark.skipif(sys.platform != "linux", reason="only the kernel of Linux ends a process with its parent")
def test_what_was_forked_ends_with_the_process_of_the_tests_when_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "sleeper.py").write_text("import time; print('asleep', flush=True); time.sleep(600)")
    with subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-c", STARTS, tmp_path], stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        pid = int(tests.stdout.readline())
        until(lambda: "asleep" in (tmp_path / "stdout").read_text(), what="its first line")

        tests.kill()

    try:
        until(lambda: gone(pid), what="its end")
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
