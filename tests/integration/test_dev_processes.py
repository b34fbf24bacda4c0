"""Children of a real process: they end with it and not with a thread of it."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.dev.processes import LOG_MAX_BYTES, RESTART_EVERY_S, Child, Supervisor
from tests.freezing import freeze, thaw
from tests.integration.dev_process import gone
from tests.integration.service_process import until


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def a_child(directory: Path, cleanup: ExitStack, *, command: tuple[str, ...] = ("sleep", "600")) -> Child:
    child = Child("sleeper", command=command, cwd=directory, log=directory / "log")
    cleanup.callback(child.kill)
    return child


def test_children_die_with_a_killed_parent(tmp_path: Path) -> None:
    program = f"""
        import time
        from pathlib import Path
        from bridge.dev.processes import Child
        here = Path({str(tmp_path)!r})
        child = Child("sleeper", command=["sleep", "600"], cwd=here, log=here / "log")
        child.start()
        print(child.pid, flush=True)
        time.sleep(600)
    """
    with subprocess.Popen(  # noqa: S603 - our own command line
        [sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert not gone(pid)

        parent.kill()

    until(lambda: gone(pid), what="the child's end")


def test_a_child_outlives_the_thread_that_started_it(tmp_path: Path, cleanup: ExitStack) -> None:
    """The kernel ties it to a thread; the fixtures of tests start brokers from threads that end."""
    child = a_child(tmp_path, cleanup)
    with ThreadPoolExecutor(1) as pool:
        pool.submit(child.start).result()

    assert not child.wait(0.3)


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


def test_a_frozen_child_stands_still_with_all_its_threads_and_can_be_stopped(
    tmp_path: Path, cleanup: ExitStack
) -> None:
    """A broker answered a write once that came after its pause, from a thread on another core."""
    busy = """
        import hashlib, threading
        def work():
            while True:
                hashlib.sha256(block)
        block = bytes(1 << 26)
        for _ in range(4):
            threading.Thread(target=work).start()
        print("busy", flush=True)
    """
    child = a_child(tmp_path, cleanup, command=(sys.executable, "-c", textwrap.dedent(busy)))
    child.start()
    until(lambda: child.last_line == "busy", what="a busy child")

    for _ in range(20):
        freeze(child.pid)
        assert {stat.read_text().rpartition(")")[2].split()[0] for stat in _threads(child)} == {"T"}
        thaw(child.pid)
    freeze(child.pid)
    child.stop()
    assert child.exit_code == -signal.SIGTERM


def _threads(child: Child) -> list[Path]:
    return list(Path(f"/proc/{child.pid}/task").glob("*/stat"))
