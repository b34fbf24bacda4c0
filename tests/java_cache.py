"""A cache of Kafka's loaded and linked classes: a broker then starts with half of the CPU.

`python -m tests.java_cache` writes the file (JEP 514); without it, or with an older Java, tests are only slower.
"""

import hashlib
import re
import shutil
import tempfile
from pathlib import Path

from bridge.dev.jars import LOCK, cache_dir
from bridge.dev.kafka import create_topics
from bridge.dev.programs import find_java
from tests.cluster import STANDARD_TOPICS, EmbeddedCluster

# The first Java that writes such a file in one go.
MAJOR_MIN = 25
# Most test brokers run for seconds; the optimizing compiler would take half of their start.
SHORT_LIVED = "-XX:TieredStopAtLevel=1"
# After its stop a broker writes the file: 10 s on an idle machine.
STOP_S = 300.0


def java_options() -> str:
    """Return `JDK_JAVA_OPTIONS` for every JVM of a test."""
    if not any(cache_dir().glob("kafka-*.aot")):  # where unit tests alone are run there may be no Java
        return SHORT_LIVED
    path = _cache_of(find_java())
    # The JVM reports unusable parts of the file on its output, and continues without them.
    return f'{SHORT_LIVED} "-XX:AOTCache={path}" -Xlog:aot*=off' if path.exists() else SHORT_LIVED


def _cache_of(java: Path) -> Path:
    release = java.parent.parent / "release"
    made_for = str(java).encode() + LOCK.read_bytes() + (release.read_bytes() if release.exists() else b"")
    return cache_dir() / f"kafka-{hashlib.sha256(made_for).hexdigest()[:12]}.aot"


def _major_of(java: Path) -> int:
    """Read the major version from a JDK's `release` file; 0 if it has none."""
    release = java.parent.parent / "release"
    found = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.exists() else None
    return int(found[1]) if found else 0


def main() -> None:
    """Start a broker, create topics and stop it, and store its classes."""
    java = find_java()
    path = _cache_of(java)
    if _major_of(java) < MAJOR_MIN or path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as directory:
        written = Path(directory) / "kafka.aot"
        cluster = EmbeddedCluster(Path(directory), brokers=1)
        # Only of the broker: the program that formats its directory is a JVM, too.
        cluster.brokers[1]._command[1:1] = [SHORT_LIVED, f"-XX:AOTCacheOutput={written}"]
        cluster.start()
        create_topics(cluster.bootstrap_servers, STANDARD_TOPICS)
        cluster.brokers[1].grace_s = STOP_S
        cluster.brokers[1].stop()
        cluster.stop()
        shutil.move(written, path)


if __name__ == "__main__":
    main()
