"""Run Apache Kafka in KRaft mode on this machine: one broker for a demonstration, three for fault tests."""

import asyncio
import os
import shutil
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

from bridge.dev.files import read_json, write_json, write_text
from bridge.dev.ports import HOST, stable_ports
from bridge.dev.processes import Child, run_to_end
from bridge.errors import ConfigError
from bridge.kafka.admin import AdminError, open_admin, topic_specs
from bridge.kafka.connection import KafkaConnection

_FORMAT_TIMEOUT_S = 60.0
# Brokers needed to survive the loss of one, and in-sync replicas that acknowledge a record, as in production.
_REPLICATED_FROM = 3
_MIN_IN_SYNC = 2
# Heap sizes: one broker then has 380 MB resident; three with the smaller heap fit next to a test suite.
_HEAP_ALONE, _HEAP_OF_MANY = "384m", "320m"
_LOG4J = Path(__file__).with_name("log4j2.properties")
T = TypeVar("T")
# Seconds. Loopback responses take milliseconds, but a starting broker accepts connections without responding.
_PROBE_TIMEOUT_S = 3.0


class KafkaCluster:
    """Brokers 1 to n under one directory; stop and start keep data, ports and cluster id."""

    def __init__(self, directory: Path, *, brokers: int, java: Path, class_path: str, logs: Path) -> None:
        """`directory` need not exist yet; `logs` must."""
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._cluster_id = _cluster_id(directory / "cluster.json", brokers=brokers)
        self._java = java
        self._heap = _HEAP_ALONE if brokers == 1 else _HEAP_OF_MANY
        self._class_path = class_path
        roles = [f"{kind}-{number}" for kind in ("broker", "controller") for number in range(1, brokers + 1)]
        self._ports = stable_ports(directory / "ports.json", names=roles)
        self.brokers: Mapping[int, Child] = {
            number: Child(
                f"broker-{number}",
                command=self._command("kafka.Kafka", "server.properties"),
                cwd=self._home(number),
                log=logs / f"broker-{number}.log",
                env=_environment(),
            )
            for number in range(1, brokers + 1)
        }

    @property
    def bootstrap_servers(self) -> str:
        """All brokers as host:port, separated by commas."""
        return ",".join(self._address(number) for number in self.brokers)

    def start(self) -> None:
        """Start every broker and return when each responds and knows all the others."""
        self._prepare()
        for broker in self.brokers.values():
            broker.start()
        for number in self.brokers:
            self._wait_ready(number, expect=set(self.brokers))

    def stop(self) -> None:
        """Stop all brokers, with a controlled shutdown while the quorum lasts."""
        for broker in self.brokers.values():
            broker.terminate()
        for broker in self.brokers.values():
            # The last broker of the quorum cannot finish its controlled shutdown, since no controller is left.
            broker.stop()

    def kill(self) -> None:
        """Kill all brokers at once, like a power failure."""
        for broker in self.brokers.values():
            broker.kill()

    def _address(self, number: int) -> str:
        return f"{HOST}:{self._ports[f'broker-{number}']}"

    def _home(self, number: int) -> Path:
        return self._directory / f"broker-{number}"

    def _command(self, main: str, *arguments: str) -> list[str]:
        """Command line of a JVM that runs in a broker's directory; its paths are relative to that."""
        return [
            str(self._java),
            f"-Xmx{self._heap}",
            "-XX:+UseSerialGC",  # threads of G1 cost more than they save on a heap this small
            "-XX:-UsePerfData",  # a killed JVM would leave its file in /tmp
            "-Djava.awt.headless=true",
            "-Djava.io.tmpdir=tmp",
            f"-Dlog4j2.configurationFile={_LOG4J}",
            *("-cp", self._class_path, main, *arguments),
        ]

    def _prepare(self) -> None:
        for number in self.brokers:
            home = self._home(number)
            home.mkdir(exist_ok=True)
            # Libraries that the JVM unpacks; a killed one does not remove them.
            shutil.rmtree(home / "tmp", ignore_errors=True)
            (home / "tmp").mkdir()
            write_text(
                home / "server.properties", server_properties(number, brokers=len(self.brokers), ports=self._ports)
            )
        with ThreadPoolExecutor(len(self.brokers)) as pool:
            list(pool.map(self._format, self.brokers))

    def _format(self, number: int) -> None:
        """Format the log directory with the cluster id; our file `formatted` marks completion."""
        home = self._home(number)
        formatted = home / "formatted"
        if formatted.exists():
            return
        shutil.rmtree(home / "log", ignore_errors=True)
        # One argument: otherwise an id that starts with a dash, as one in 64 does, is taken for an option.
        identity = f"--cluster-id={self._cluster_id}"
        command = self._command("kafka.tools.StorageTool", "format", identity, "-c", "server.properties")
        code, text = run_to_end(command, timeout_s=_FORMAT_TIMEOUT_S, cwd=home, env=_environment())
        if code:
            last_line = text.rpartition("\n")[2] or "no output"
            raise ConfigError(f"broker {number} could not be formatted in {home}: {last_line}")
        formatted.touch()

    def _wait_ready(self, number: int, *, expect: set[int]) -> None:
        address = self._address(number)
        self.brokers[number].wait_until(lambda: expect <= known_brokers(address))


def _environment() -> dict[str, str]:
    """Return our environment with a UTF-8 locale: in the C locale, the JVM supports only ASCII file names."""
    return {**os.environ, "LC_ALL": "C.UTF-8"}


def _cluster_id(path: Path, *, brokers: int) -> str:
    """Return the cluster id, created once for the directory and its number of brokers."""
    known = read_json(path)
    if not known:
        # Kafka's own form: the 16 bytes of a UUID, URL-safe Base64 without padding.
        known = {"cluster_id": urlsafe_b64encode(uuid.uuid4().bytes).rstrip(b"=").decode(), "brokers": brokers}
        write_json(path, known)
    if known["brokers"] != brokers:
        raise ConfigError(
            f"{path.parent} has a cluster of {known['brokers']} broker(s), not {brokers}: use another data directory"
        )
    return str(known["cluster_id"])


def server_properties(number: int, *, brokers: int, ports: Mapping[str, int]) -> str:
    """Text of `server.properties` of broker `number`; paths are relative, since Kafka splits `log.dirs` at commas."""
    replicas = min(brokers, _REPLICATED_FROM)
    in_sync = _MIN_IN_SYNC if brokers >= _REPLICATED_FROM else 1
    voters = ",".join(f"{n}@{HOST}:{ports[f'controller-{n}']}" for n in range(1, brokers + 1))
    client = f"PLAINTEXT://{HOST}:{ports[f'broker-{number}']}"
    controller = f"CONTROLLER://{HOST}:{ports[f'controller-{number}']}"
    lines = {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{client},{controller}",
        "advertised.listeners": client,
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "log",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        # 50 by default; each is a directory to open and recover, and few are needed here.
        "offsets.topic.num.partitions": 6,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 6,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 9 s by default: how long a write waits when a broker dies.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 1000,
        # 3 s by default, to gather members that start one by one in production.
        "group.initial.rebalance.delay.ms": 0,
        # By default an idle controller writes an empty record twice a second to measure lag, which takes a third of an
        # idle broker's CPU time.
        "metadata.max.idle.interval.ms": 0,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())


def known_brokers(address: str) -> set[int]:
    """Return the ids of live brokers known to the one at `address`; empty while it does not respond."""

    async def ask() -> set[int]:
        async with asyncio.timeout(_PROBE_TIMEOUT_S), open_admin(KafkaConnection(address)) as admin:
            return await admin.brokers()

    try:
        return _run(ask())
    except (AdminError, TimeoutError):
        return set()


def create_topics(bootstrap_servers: str, topics: Mapping[str, int]) -> None:
    """Create the missing `topics` (partitions by name), three replicas each if possible."""

    async def order() -> None:
        async with open_admin(KafkaConnection(bootstrap_servers)) as admin:
            replicas = await admin.default_replication_factor()
            specs = (topic_specs([name], partitions=each, replication_factor=replicas) for name, each in topics.items())
            await admin.create(list(chain(*specs)))

    _run(order())


def _run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on an event loop in another thread, since this thread may be running one."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()
