"""The Kafka cluster that tests run on: embedded brokers or Docker, behind one interface."""

import gc
import os
import shutil
import warnings
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from uuid import uuid4

from bridge.dev.files import write_json
from bridge.dev.jars import JarCache
from bridge.dev.kafka import KafkaCluster, create_topics
from bridge.dev.programs import find_java
from tests.freezing import freeze, thaw

# Broker number to the files of its formatted directory: name to content.
_FORMATTED: dict[int, dict[str, bytes]] = {}
# docs/contract.md §4: all three topics have 12 partitions, in `dev` too.
STANDARD_TOPICS = {"drx.prescriptions.v1": 12, "drx.accounts.v1": 12, "drx.unrecognized.v1": 12}


class Cluster(Protocol):
    """Brokers 1 to n. All calls block: from a running loop use `asyncio.to_thread`."""

    @property
    def bootstrap_servers(self) -> str:
        """Every broker as host:port, separated by commas; the same after a restart."""

    def start(self) -> None:
        """Return when every broker responds."""

    def stop(self) -> None:
        """Stop every broker and remove its data."""

    def kill_broker(self, number: int) -> None:
        """SIGKILL."""

    def start_broker(self, number: int) -> None:
        """Start a killed broker; return when it responds."""

    def pause_broker(self, number: int) -> None:
        """Freeze it with its connections open."""

    def resume_broker(self, number: int) -> None:
        """Undo `pause_broker`."""


class EmbeddedCluster(KafkaCluster):
    """Brokers of `bridge.dev`; they end with the test process."""

    def __init__(self, directory: Path, *, brokers: int) -> None:
        """Keep data and logs below `directory`."""
        cache = JarCache()
        cache.fetch()
        self._data = directory / "kafka"
        self._data.mkdir(parents=True)
        # One id in 64 starts with a dash, which a command line may read as an option; here every id does.
        write_json(self._data / "cluster.json", {"cluster_id": "-" + "A" * 21, "brokers": brokers})
        super().__init__(self._data, brokers=brokers, java=find_java(), class_path=cache.class_path, logs=directory)

    def kill_broker(self, number: int) -> None:
        self.brokers[number].kill()

    def start_broker(self, number: int) -> None:
        self.brokers[number].start()
        self._wait_ready(number, expect={number})

    def pause_broker(self, number: int) -> None:
        freeze(self.brokers[number].pid)

    def resume_broker(self, number: int) -> None:
        thaw(self.brokers[number].pid)

    def _format(self, number: int) -> None:
        """Format the directory of the first broker with a number; copy its files for later brokers with that number.

        The files are equal, as all have one cluster id, and formatting takes half of a start.
        """
        log, formatted = self._home(number) / "log", self._home(number) / "formatted"
        if formatted.exists():
            return
        if number not in _FORMATTED:
            super()._format(number)
            _FORMATTED[number] = {path.name: path.read_bytes() for path in log.iterdir()}
            return
        log.mkdir()
        for name, content in _FORMATTED[number].items():
            (log / name).write_bytes(content)
        formatted.touch()

    def spoil_last_batch(self, topic: str, partition: int) -> None:
        """Change the last byte of a partition on the disk of broker 1, so that the CRC of its batch is wrong.

        The broker sends the file's bytes without checking the CRC.
        """
        (segment,) = self._data.glob(f"broker-1/**/{topic}-{partition}/*.log")
        *before, last = segment.read_bytes()
        with segment.open("r+b") as file:
            file.seek(len(before))
            file.write(bytes([last ^ 0xFF]))

    def stop(self) -> None:
        self.kill()
        shutil.rmtree(self._data, ignore_errors=True)


def docker_answers() -> bool:
    """Whether a Docker engine can be used from here."""
    if "DOCKER_HOST" not in os.environ and not Path("/var/run/docker.sock").exists():
        return False
    import docker  # noqa: PLC0415 - 0.3 s of imports, needed only where there may be an engine
    from docker.errors import DockerException  # noqa: PLC0415 - as above

    try:
        with closing(docker.from_env(timeout=2)) as client:
            return bool(client.ping())
    except DockerException:
        pass
    # The client leaves the socket of a refused connection to the garbage collector, whose warning would fail a test.
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()
    return False


def open_cluster(kind: str, directory: Path, *, brokers: int) -> Cluster:
    """Create a cluster of `kind` (`embedded` or `docker`); the caller starts and stops it."""
    if kind == "docker":
        from tests.docker.cluster import DockerCluster  # noqa: PLC0415 - testcontainers, needed only here

        return DockerCluster(brokers)
    return EmbeddedCluster(directory, brokers=brokers)


@dataclass(frozen=True, slots=True)
class Topics:
    """Creates topics on the shared cluster, with unique names."""

    bootstrap_servers: str

    def fresh(self, *, partitions: int = 12) -> str:
        name = f"test-{uuid4().hex}"
        create_topics(self.bootstrap_servers, {name: partitions})
        return name

    def standard(self) -> tuple[str, ...]:
        """Create missing topics of the contract; tests share them, so use `unique_key`."""
        create_topics(self.bootstrap_servers, STANDARD_TOPICS)
        return tuple(STANDARD_TOPICS)

    def unique_key(self, prefix: str = "rx") -> str:
        return f"{prefix}-{uuid4().hex}"
