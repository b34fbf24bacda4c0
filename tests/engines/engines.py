"""The engines that `make engines` installs, apart from the project: 1.5 GB.

`python -m tests.engines.engines` installs them below `build/engines`.
"""

import os
import subprocess
import sys
from pathlib import Path

from bridge.dev.jars import JarCache, cache_dir

ROOT = Path(__file__).parents[2]
FLINK = Path(__file__).with_name("flink.lock.toml")
SPARK = Path(__file__).with_name("spark.lock.toml")
CONNECT = Path(__file__).with_name("connect.lock.toml")
REQUIREMENTS = Path(__file__).with_name("requirements.lock")
HOME = ROOT / "build" / "engines"
PYTHON = HOME / "bin" / "python"


def jars(lock: Path) -> JarCache:
    return JarCache(cache_dir() / lock.name.partition(".")[0], lock=lock)


def environment(java: Path) -> dict[str, str]:
    """Return the variables with which an engine finds a `java` and its own Python."""
    home = str(java.resolve().parents[1])
    return {**os.environ, "JAVA_HOME": home, "PYSPARK_PYTHON": str(PYTHON), "JDK_JAVA_OPTIONS": ""}


def main() -> None:
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(HOME)], check=True)  # noqa: S603 - our own command line
    pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(REQUIREMENTS)], check=True)  # noqa: S603 - as above
    for lock in (FLINK, SPARK, CONNECT):
        jars(lock).fetch()


if __name__ == "__main__":
    main()
