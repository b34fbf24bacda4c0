"""The clock of the fault matrix moves the wall clock of another process, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.ingress.clock import SEEN_S, Clock

HANG_S = 30.0
# Says its wall clock and its monotonic clock at each line it is given.
SAYING = "import sys, time\nfor _ in sys.stdin: print(time.time(), time.monotonic(), flush=True)"
# Between one look and the next.
NEAR_S = 20.0


@pytest.mark.parametrize("step_s", [600.0, -600.0, 3_600.5])
def test_it_steps_under_a_running_process(tmp_path: Path, step_s: float) -> None:
    clock = Clock(tmp_path / "clock")
    with subprocess.Popen(  # noqa: S603 - our own
        [sys.executable, "-c", SAYING],
        env=os.environ | clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def said() -> tuple[float, float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write("\n")
            process.stdin.flush()
            wall, monotonic = process.stdout.readline().split()
            return float(wall) - time.time(), float(monotonic) - time.monotonic()

        before, monotonic_before = said()
        clock.step(step_s)
        time.sleep(SEEN_S)
        after, monotonic_after = said()
        process.communicate(timeout=HANG_S)

    assert abs(before) < NEAR_S
    assert abs(after - step_s) < NEAR_S
    assert abs(monotonic_after - monotonic_before) < NEAR_S
