"""A Docker engine: the one that answers, else a private one, which ends with its user.

`python -m tests.docker.engine COMMAND …` runs a command with an engine, and with the images of tests/docker/images.py
in the variables by which tests find theirs.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import docker

from bridge.dev.jars import cache_dir
from bridge.dev.processes import Child
from tests.cluster import docker_answers

_HOST = "DOCKER_HOST"
# Seconds for a build, the longest call.
_CALL_S = 900


@contextmanager
def open_engine() -> Iterator[Any]:
    """Yield a client of the engine that answers; else of a private one, to which `DOCKER_HOST` points for the block."""
    if docker_answers():
        with closing(docker.from_env(timeout=_CALL_S)) as client:
            yield client
        return
    if os.geteuid() != 0 or (program := shutil.which("dockerd", path=f"{os.environ['PATH']}:/usr/sbin")) is None:
        sys.exit("no Docker engine answers, and one can be started only by root, with `dockerd` (Debian: docker.io)")
    with tempfile.TemporaryDirectory(prefix="drx-engine-") as directory, _private(program, Path(directory)) as client:
        yield client


@contextmanager
def _private(program: str, directory: Path) -> Iterator[Any]:
    """Start an engine that changes no rule and no interface of this machine; its images are kept in the cache.

    Without iptables, ports are published by its proxy, and containers reach each other in networks of their own, but no
    other machine: builds use the network of the host.
    """
    address = f"unix://{directory}/docker.sock"
    command = [program, f"--host={address}", f"--data-root={cache_dir() / 'engine'}", f"--exec-root={directory}/exec"]
    command += [f"--pidfile={directory}/pid", "--bridge=none", "--iptables=false", "--ip-forward=false"]
    engine = Child("dockerd", command=command, cwd=directory, log=directory / "dockerd.log", grace_s=60.0)
    before = os.environ.get(_HOST)
    os.environ[_HOST] = address
    try:
        engine.start()
        engine.wait_until(docker_answers)
        with closing(docker.from_env(timeout=_CALL_S)) as client:
            yield client
    finally:
        engine.stop()
        _unmount(directory)
        if before is None:
            del os.environ[_HOST]
        else:
            os.environ[_HOST] = before


def _unmount(directory: Path) -> None:
    """Remove what a killed container leaves mounted, such as its network's namespace."""
    places = (line.split()[1] for line in Path("/proc/mounts").read_text().splitlines())
    for place in sorted((each for each in places if each.startswith(f"{directory}/")), reverse=True):
        subprocess.run(["umount", "--lazy", place], check=False)  # noqa: S603, S607 - below our own directory


def main(command: list[str]) -> int:
    from tests.docker import images  # noqa: PLC0415 - it needs the extra `dev`
    from tests.docker.cluster import IMAGE_VARIABLE  # noqa: PLC0415 - as above

    with open_engine() as client:
        found = {images.BASE_VARIABLE: images.base(client), IMAGE_VARIABLE: images.kafka(client)}
        # Its image that removes leftovers may not be there to pull; our containers end with their tests.
        environment = {"TESTCONTAINERS_RYUK_DISABLED": "true", **found, **os.environ}
        return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - as asked


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
