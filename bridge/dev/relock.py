"""Write the lock of the Kafka jars anew: `python -m bridge.dev.relock`, after a change of `COORDINATES`."""

from __future__ import annotations

import tempfile
from pathlib import Path

from jgo.env._lockfile import LockFile
from jgo.maven import MavenContext
from jgo.parse import Endpoint

from bridge.dev.jars import LOCK

# `!` takes each project's own choice of its dependencies: without it, log4j's list of tested versions
# (its dependencyManagement) puts kafka-clients 3.9 beside a 4.3 broker.
COORDINATES = "org.apache.kafka:kafka_2.13:4.3.1!+org.apache.logging.log4j:log4j-slf4j-impl:2.25.4!"


def relock(path: Path) -> int:
    """Resolve `COORDINATES` with everything they need into `path`; the number of jars."""
    with tempfile.TemporaryDirectory() as scratch:
        context = MavenContext(repo_cache=Path(scratch))
        wanted = [context.create_dependency(part) for part in Endpoint.parse(COORDINATES).coordinates]
        inputs, transitive = context.resolver.resolve(wanted)
        used = [*inputs, *(found for found in transitive if found.scope in {"compile", "runtime"})]
        lock = LockFile.from_resolved_dependencies(used, environment_name="kafka", min_java_version=17)
        lock.save(path)
    return len(used)


if __name__ == "__main__":
    relock(LOCK)
