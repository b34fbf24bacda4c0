"""`drx-consumer` before any consumer is installed: it says so, in one line."""

from __future__ import annotations

import subprocess
import sys


def test_a_consumer_that_is_not_installed_is_named() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "consumers", "run", "nobody"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 2
    assert done.stderr == (
        "drx-consumer: no consumer named 'nobody' (none is installed); the entry-point group is drx_bridge.consumers\n"
    )
