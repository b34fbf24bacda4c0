"""A Docker engine for the tests: the one that answers here, or one of our own that ends with them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
from docker.errors import DockerException

from tests.cluster import docker_answers

# One second on an idle machine; the last resort against a hang.
_START_TIMEOUT_S = 60.0
# It stops its containers first, and gives each of them 10 s.
_STOP_GRACE_S = 60.0
_POLL_S = 0.1
# The second one copies whole layers, which is slow, but asks nothing of the file system below.
_STORAGE_DRIVERS = ("overlay2", "vfs")


class EngineError(Exception):
    """No engine can be had here; the text says why."""


@contextmanager
def open_engine(work_dir: Path) -> Iterator[str | None]:
    """Yield the address of an engine for `DOCKER_HOST`: None for the one that answers already.

    Args:
        work_dir: Where an engine of our own keeps its log, and its images and containers until it ends.

    Raises:
        EngineError: None answers and none could be started.
    """
    if docker_answers():
        yield None
        return
    # Not below `work_dir`: a socket's path has 107 characters at most, and the engine makes some of its own.
    runtime_dir = Path(tempfile.mkdtemp(prefix="drx-docker-"))
    # What a killed run left in it is not removed first: the engine takes it over, and can then undo its network.
    store = work_dir / "engine"
    try:
        process = _start(runtime_dir, store=store, log=work_dir / "dockerd.log")
        try:
            yield _address(runtime_dir)
        finally:
            _stop(process)
    finally:
        shutil.rmtree(runtime_dir, ignore_errors=True)
        shutil.rmtree(store, ignore_errors=True)


def _address(runtime_dir: Path) -> str:
    return f"unix://{runtime_dir}/docker.sock"


def _start(runtime_dir: Path, *, store: Path, log: Path) -> subprocess.Popen[bytes]:
    for driver in _STORAGE_DRIVERS:
        process = _spawn(runtime_dir, store=store, log=log, driver=driver)
        try:
            if _answers(process, _address(runtime_dir)):
                return process
        except BaseException:
            _stop(process)
            raise
        _stop(process)
    msg = f"dockerd could not be started; see {log}"
    raise EngineError(msg)


def _spawn(runtime_dir: Path, *, store: Path, log: Path, driver: str) -> subprocess.Popen[bytes]:
    # It touches nothing of the host's network: no bridge but that of a test's cluster, no packet filter, no routing. A
    # published port of 127.0.0.1 is served by a small proxy, and a container reaches nothing outside.
    network = ["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-forward=false"]
    command = [
        # Should we be killed, it is asked to stop, and takes its containers along.
        *("setpriv", "--pdeathsig", "TERM"),
        *("dockerd", "--host", _address(runtime_dir)),
        *("--pidfile", str(runtime_dir / "dockerd.pid")),
        *("--exec-root", str(runtime_dir / "exec")),
        *("--data-root", str(store / driver)),
        *("--storage-driver", driver),
        *network,
    ]
    with log.open("ab") as output:
        return subprocess.Popen(  # noqa: S603 - our own command line
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # the terminal's Ctrl-C is for us; we stop it after its containers
        )


def _answers(process: subprocess.Popen[bytes], address: str) -> bool:
    """Wait for its first answer; False when it ended instead or took too long."""
    socket_path = Path(address.removeprefix("unix://"))
    deadline = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < deadline:
        if socket_path.exists():
            try:
                client = docker.DockerClient(base_url=address, version="auto")
            except DockerException:
                pass
            else:
                client.close()
                return True
        time.sleep(_POLL_S)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_GRACE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
