"""Prometheus's own judge of metrics, rules and queries: the one on the PATH, else Debian's, unpacked for this user.

`python -m tests.promtool` fetches it where it is missing; nothing is installed and no server is started.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from bridge.dev.jars import cache_dir

PACKAGE = "prometheus"
_HINT = (
    "promtool is missing: put it on the PATH (it comes with Prometheus; Debian: `apt-get install prometheus`), "
    "or run `make promtool` on a Debian"
)


def find() -> str | None:
    """Return the program, if it is there."""
    own = _own()
    return shutil.which("promtool") or (str(own) if own.exists() else None)


def fetch() -> str | None:
    """Return the program, after unpacking Debian's package if need be; None where that cannot be done."""
    found = find()
    if found is not None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return found
    own = _own()
    own.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=own.parent) as scratch:
        # Lists of packages may be old or none; only root may renew them, and only root needs to.
        if not _download(scratch) and not (_run("apt-get", "update", cwd=scratch) and _download(scratch)):
            return None
        (package,) = Path(scratch).glob("*.deb")
        if not _run("dpkg-deb", "--extract", str(package), "content", cwd=scratch):
            return None
        (Path(scratch) / "content" / "usr" / "bin" / "promtool").rename(own)
    return str(own)


@cache
def _program() -> str:
    found = fetch()
    if found is None:
        pytest.fail(_HINT)
    return found


def promtool(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; a test without it fails, saying where it comes from."""
    command = [_program(), *arguments]
    return subprocess.run(  # noqa: S603 - our own command line
        command, input=stdin, cwd=cwd, capture_output=True, text=True, check=False
    )


def complaints(queries: list[str], directory: Path) -> str:
    """Have queries parsed, as rules of a file, since that is what it parses; return what it says against them."""
    rules = [{"record": f"parsed:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = directory / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    return done.stdout + done.stderr if done.returncode else ""


def _own() -> Path:
    return cache_dir() / "promtool" / "promtool"


def _download(directory: str) -> bool:
    return _run("apt-get", "download", "--quiet", PACKAGE, cwd=directory)


def _run(*command: str, cwd: str) -> bool:
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False).returncode == 0  # noqa: S603 - as above


if __name__ == "__main__":
    sys.exit(None if fetch() else _HINT)
