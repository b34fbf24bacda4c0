"""Children of a real process: they end with it and not with a thread of it."""

import signal
from pathlib import Path

from bridge.dev.processes import Child
from tests.integration.service_process import until


def test_a_stop_is_bounded(tmp_path: Path) -> None:
    command = ("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done")
    deaf = Child("deaf", command=command, cwd=tmp_path, log=tmp_path / "log", grace_s=0.1)
    deaf.start()
    until(lambda: "deaf" in (tmp_path / "log").read_text(), what="its first line")

    deaf.stop()

    assert deaf.exit_code == -signal.SIGKILL
