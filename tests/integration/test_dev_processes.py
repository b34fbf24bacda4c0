"""Children of a real process: they end with it and not with a thread of it."""

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.dev.processes import Child
from tests.integration.service_process import until


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def a_child(directory: Path, cleanup: ExitStack, *, command: tuple[str, ...] = ("sleep", "600")) -> Child:
    child = Child("sleeper", command=command, cwd=directory, log=directory / "log")
    cleanup.callback(child.kill)
    return child


def test_a_stop_is_bounded(tmp_path: Path, cleanup: ExitStack) -> None:
    deaf = a_child(tmp_path, cleanup, command=("sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 1; done"))
    deaf.grace_s = 0.1
    deaf.start()
    until(lambda: "deaf" in (tmp_path / "log").read_text(), what="its first line")

    deaf.stop()

    assert deaf.exit_code == -signal.SIGKILL
