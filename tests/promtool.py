"""Prometheus's checker of metrics, rules and queries."""

import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests.debian import fetch, lacking


@cache
def _program() -> str:
    found = fetch("promtool")
    if found is None:
        pytest.fail(lacking("promtool"))
    return found


def promtool(*arguments: str, stdin: str = "", cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; without it a test fails with a hint how to get it."""
    # Its garbage collection takes a fifth of the time of a run that ends after a second.
    command = [_program(), *arguments]
    return subprocess.run(  # noqa: S603 - our own command line
        command, input=stdin, cwd=cwd, capture_output=True, text=True, check=False, env=os.environ | {"GOGC": "400"}
    )


def complaints(queries: list[str], directory: Path) -> str:
    """Check queries as rules of a file, since it parses only rules; return its complaints."""
    rules = [{"record": f"parsed:query:{number}", "expr": query} for number, query in enumerate(queries)]
    file = directory / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "parsed", "rules": rules}]}))
    done = promtool("check", "rules", str(file))
    return done.stdout + done.stderr if done.returncode else ""
