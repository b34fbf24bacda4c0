"""Run every test that needs a broker on brokers in Docker, pulling nothing: `python -m tests.docker.run [PYTEST_ARG…]`.

Installs Debian's engine where it is missing, so it wants root and Debian; what it starts and makes is gone at the end.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import docker

from tests.cluster import docker_answers
from tests.docker.cluster import IMAGE_VARIABLE
from tests.docker.engine import EngineError, open_engine
from tests.docker.kafka_image import BASE, built_kafka_image
from tests.docker.own_image import BASE_VARIABLE

_ROOT = Path(__file__).parents[2]
# Its logs stay for the reader; `build/` is what this project makes and ignores.
_WORK_DIR = _ROOT / "build" / "docker"
_EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Give pytest's exit code, or 2 with one line when it could not come to that."""
    # As Ctrl-C does: unwind, so that the engine, the image and the containers go.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    if os.geteuid() != 0:
        return _refuse("debootstrap and dockerd need root")
    _WORK_DIR.mkdir(parents=True, exist_ok=True)
    try:
        _install_missing()
        with ExitStack() as stack:
            address = stack.enter_context(open_engine(_WORK_DIR))
            engine = {"DOCKER_HOST": address} if address else {}
            client = stack.enter_context(closing(docker.from_env(environment={**os.environ, **engine})))
            _say(f"engine {client.version()['Version']}, {'started here' if address else 'found'}; building the image")
            image = stack.enter_context(built_kafka_image(client, work_dir=_WORK_DIR))
            return _pytest(arguments, environ={**os.environ, **engine, IMAGE_VARIABLE: image, BASE_VARIABLE: BASE})
    except EngineError as exc:
        return _refuse(str(exc))
    except subprocess.CalledProcessError as exc:
        return _refuse(f"{exc.cmd[0]} failed ({exc.returncode}); its output, where not above, is in {_WORK_DIR}")


def _install_missing() -> None:
    """Install what the machine lacks from Debian; nothing else is taken from outside."""
    wanted = [("debootstrap", "debootstrap")]
    if not docker_answers():
        wanted.append(("dockerd", "docker.io"))
    packages = [package for program, package in wanted if shutil.which(program) is None]
    if not packages:
        return
    if shutil.which("apt-get") is None:
        msg = f"needs {' and '.join(packages)}, and can install them on Debian only"
        raise EngineError(msg)
    _say(f"installing {' and '.join(packages)}")
    environ = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in (["update"], ["install", "--yes", "--no-install-recommends", *packages]):
        subprocess.run(  # noqa: S603 - our own command line
            ["apt-get", "-qq", *command],  # noqa: S607 - as the system has it
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            env=environ,
            check=True,
        )


def _pytest(arguments: Sequence[str], *, environ: dict[str, str]) -> int:
    command = [sys.executable, "-m", "pytest", "--kafka=docker", "-m", "kafka", *(arguments or ["tests"])]
    # Ryuk, which removes what a killed run leaves, is an image that cannot be pulled; the caller removes it instead.
    environ["TESTCONTAINERS_RYUK_DISABLED"] = "true"
    return subprocess.run(command, cwd=_ROOT, env=environ, check=False).returncode  # noqa: S603 - as above


def _say(text: str) -> None:
    print(f"test-docker: {text}", file=sys.stderr, flush=True)  # noqa: T201 - a command's own output


def _refuse(reason: str) -> int:
    _say(reason)
    return _EXIT_USAGE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
