"""Faults found earlier, reintroduced one by one: `python -m tests.simulation.faults [NAME ...]`.

Each is a patch of the product in `faults/NAME.patch`, under a line with the promise that it breaks and how. Worlds run
on a patched copy until one breaks that promise.
"""

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from tests.simulation.effects import EFFECTS

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
COPIED = ("bridge", "consumers", "schemas", "tests")


class Fault(NamedTuple):
    """A patch, and the promise that it breaks."""

    name: str
    promise: str
    kinds: str  # of acts that it needs, so that other worlds are left out
    what: str
    patch: str


def faults() -> list[Fault]:
    """Return all of them by name."""
    found = []
    for path in sorted((HERE / "faults").glob("*.patch")):
        line, _, patch = path.read_text().partition("\n")
        where, _, what = line.partition(": ")
        promise, _, kinds = where.partition(" of worlds with ")
        found.append(Fault(path.stem, promise, kinds, what, patch))
    return found


def bite(fault: Fault, *, first: int, seeds: int, limit: str) -> bool:
    """Run worlds with a fault until one breaks its promise; print which, and return whether one does."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="fault-") as directory:
        for name in COPIED:
            shutil.copytree(ROOT / name, Path(directory, name), ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run(["git", "apply", "-"], cwd=directory, input=fault.patch, text=True, check=True)  # noqa: S607 - git of the PATH
        command = [sys.executable, "-m", "tests.simulation", "--first", str(first), "--seeds", str(seeds)]
        command += ["--for", limit, "--until", fault.promise, "--stories", "0", "--with", fault.kinds]
        command += ["--consumers"] if fault.promise in EFFECTS else []
        ran = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)  # noqa: S603 - ours
    *broken, last = ran.stdout.splitlines()
    is_found = bool(broken) and f": {fault.promise}" in broken[-1]
    seed = broken[-1] if is_found else f"NOT FOUND, {len(broken)} worlds broke another promise"
    worlds = re.match(r"\d+", last)
    sys.stdout.write(f"{fault.name}: {worlds and worlds[0]} worlds, {time.monotonic() - began:.0f} s, {seed}\n")
    sys.stdout.flush()
    return is_found


def main() -> int:
    """Return 1 if a fault was not found."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.faults", description="Find known faults again.")
    parser.add_argument("names", nargs="*", help="which ones; default: all")
    parser.add_argument("--first", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=2000, help="how many worlds at most")
    parser.add_argument("--for", dest="limit", default="10m", help="for how long at most, such as 10m")
    given = parser.parse_args()
    chosen = [each for each in faults() if not given.names or each.name in given.names]
    missed = [each for each in chosen if not bite(each, first=given.first, seeds=given.seeds, limit=given.limit)]
    return int(bool(missed) or not chosen)


if __name__ == "__main__":
    sys.exit(main())
