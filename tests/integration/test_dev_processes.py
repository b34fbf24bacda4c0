"""Children of a real process: they end with it and not with a thread of it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.dev.processes import LOG_MAX_BYTES, RESTART_EVERY_S, Child, Supervisor
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


def test_a_log_that_has_grown_too_large_is_set_aside(tmp_path: Path, cleanup: ExitStack) -> None:
    (tmp_path / "log").write_bytes(b"x" * (LOG_MAX_BYTES + 1))
    a_child(tmp_path, cleanup).start()

    assert (tmp_path / "log.1").stat().st_size == LOG_MAX_BYTES + 1
    assert (tmp_path / "log").stat().st_size == 0


@pytest.mark.parametrize("restart", [True, False])
def test_what_dies_is_told_once_and_started_again_after_a_while_unless_it_is_left_alone(
    tmp_path: Path, cleanup: ExitStack, *, restart: bool
) -> None:
    now, told = [100.0], list[str]()
    child = a_child(tmp_path, cleanup)
    supervisor = Supervisor(restart=restart, now=lambda: now[0], say=told.append)
    child.start()
    supervisor.watch([child])
    child.kill()
    assert [supervisor.tend() for _ in range(3)] == [True, False, False]
    now[0] += RESTART_EVERY_S
    assert [supervisor.tend() for _ in range(2)] == [restart, False]
    assert (child.alive, len(told)) == (restart, 1 + restart)

    supervisor.leave([child])
    child.kill()
    now[0] += RESTART_EVERY_S
    assert not supervisor.tend()
