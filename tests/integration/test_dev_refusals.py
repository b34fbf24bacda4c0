"""What stands in the way of `drx-bridge dev` is told in one line, with exit code 2."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.integration.dev_process import run_dev


def refused(*arguments: str, **env: str) -> str:
    """Run it, check the form of the refusal and return its line."""
    done = run_dev(*arguments, env=env)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
    return lines[0]


def a_java(path: Path, *, answer: str, exit_code: int = 0) -> str:
    path.write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit {exit_code}\n")
    path.chmod(0o755)
    return str(path)


def test_a_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """Below a regular file, which not even root can enter."""
    (tmp_path / "file").touch()

    line = refused("--data-dir", str(tmp_path / "file" / "dev"))

    assert "cannot be written (Not a directory)" in line
    assert str(tmp_path / "file" / "dev") in line


def test_an_ingress_port_in_use(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]

        line = refused("--data-dir", str(tmp_path), "--ingress-port", str(port))

    assert f"--ingress-port {port}: in use" in line


@pytest.mark.parametrize(
    ("answer", "exit_code", "told"),
    [
        ('openjdk version "11.0.22" 2024-01-16', 0, "is Java 11; Kafka needs Java 17 or newer"),
        ('java version "1.8.0_392"', 0, "is Java 8; Kafka needs Java 17 or newer"),
        ("no Java here", 0, "does not run as Java"),
        ("Error occurred during initialization of VM", 1, "does not run as Java"),
    ],
)
def test_a_java_that_is_too_old_or_none(tmp_path: Path, answer: str, exit_code: int, told: str) -> None:
    java = a_java(tmp_path / "java", answer=answer, exit_code=exit_code)

    line = refused("--data-dir", str(tmp_path / "dev"), BRIDGE_DEV_JAVA=java)

    assert f"BRIDGE_DEV_JAVA: {java}" in line
    assert told in line


def test_a_cache_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    done = run_dev("--fetch-only", env={"BRIDGE_DEV_CACHE": str(tmp_path / "file" / "cache")})

    assert done.returncode == 2
    assert done.stderr.strip().endswith("(Not a directory): set BRIDGE_DEV_CACHE to another directory")
