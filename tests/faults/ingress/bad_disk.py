"""The ingress on a disk that is small, read-only, or fails its fsync: `python -m tests.faults.ingress.bad_disk serve`.

Runs in a separate mount namespace, so that its mounts end with it. An fsync fails while the file that `FSYNC` names
exists. The file's content can limit that to one failure, or make the fsync hang. The kernel's error is raised in
Python, which needs neither privileges nor a tracer.
"""

import errno
import os
import subprocess
import time
from pathlib import Path

from bridge.cli import main

MOUNT = "FAULTS_MOUNT"
"""Options of a file system in memory that takes the place of the spool's directory."""
FSYNC = "FAULTS_FSYNC"
ONCE, HANG = "once", "hang"
# Interval of checks for the end of a hang.
_LOOK_S = 0.05


def mount() -> None:
    options = os.environ.get(MOUNT)
    if options:
        directory = Path(os.environ["BRIDGE_SPOOL__DIR"])
        directory.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(directory)], check=True)  # noqa: S603, S607 - a test's own


def watch_fsync() -> None:
    order = os.environ.get(FSYNC)
    if not order:
        return
    path, really = Path(order), os.fdatasync

    def ordered() -> str:
        try:
            return path.read_text()
        except FileNotFoundError:
            return ""

    def fdatasync(handle: int) -> None:
        while (text := ordered()) == HANG:
            time.sleep(_LOOK_S)
        if not text:
            really(handle)
            return
        if text == ONCE:
            path.unlink()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    os.fdatasync = fdatasync  # type: ignore[assignment]  # positional and by name alike


if __name__ == "__main__":
    mount()
    watch_fsync()
    main()
