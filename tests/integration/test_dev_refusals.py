"""What stands in the way of `drx-bridge dev` is told in one line, with exit code 2."""

from __future__ import annotations

import socket
from pathlib import Path

from tests.integration.dev_process import run_dev


def refused(*arguments: str, **env: str) -> str:
    """Run it, check the form of the refusal and return its line."""
    done = run_dev(*arguments, env=env)
    lines = done.stderr.strip().splitlines()
    assert (done.returncode, len(lines), done.stdout) == (2, 1, ""), done.stderr
    return lines[0]


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
