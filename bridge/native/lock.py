"""Write Cargo.lock from `crates.lock`: `python bridge/native/lock.py`; with `--update` lock new versions.

`crates.lock` is a Cargo.lock without its `source` lines. These name a host, which is for the configuration of cargo to
say, and no source of this project does. Cargo puts one into what it says of the crate's requirements, also without a
network; with it the lock is whole, and `cargo build --locked` holds every crate to its version and checksum.

Only the standard library: it runs where the wheel is built.
"""
# ruff: noqa: INP001 - a script beside its crate, no package

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
KEPT = HERE / "crates.lock"
LOCK = HERE / "Cargo.lock"


def source() -> str:
    """Return where the crates come from."""
    (package,) = json.loads(cargo("metadata", "--no-deps", "--offline", "--format-version", "1"))["packages"]
    (found,) = {str(each["source"]) for each in package["dependencies"]}
    return found


def without_sources(lock: str) -> str:
    """Leave out the lines that name a host."""
    return re.sub(r"^source = .*\n", "", lock, flags=re.MULTILINE)


def with_sources(kept: str, where: str) -> str:
    """Put these lines in front of the checksums, which only crates from elsewhere have."""
    return re.sub(r"^(?=checksum = )", f'source = "{where}"\n', kept, flags=re.MULTILINE)


def cargo(*arguments: str) -> str:
    """Run cargo on the crate."""
    command = ["cargo", *arguments]
    return subprocess.run(command, cwd=HERE, check=True, stdout=subprocess.PIPE, text=True).stdout  # noqa: S603


def main(arguments: list[str]) -> None:
    """Write one of the two."""
    if arguments == ["--update"]:
        cargo("update")
        KEPT.write_text(without_sources(LOCK.read_text()))
    else:
        LOCK.unlink(missing_ok=True)  # cargo would read it
        LOCK.write_text(with_sources(KEPT.read_text(), source()))


if __name__ == "__main__":
    main(sys.argv[1:])
