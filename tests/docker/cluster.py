"""Kafka brokers in containers, for the same suite that runs on the embedded brokers where there is no Docker."""

import os
import time
from collections.abc import Mapping
from contextlib import ExitStack

from testcontainers.core.container import DockerContainer
from testcontainers.core.network import Network

from bridge.dev.kafka import known_brokers, server_properties
from bridge.dev.ports import HOST, free_port

IMAGE_VARIABLE = "DRX_TEST_KAFKA_IMAGE"
# The public image of the version that the embedded stack runs (bridge/dev/kafka.lock.toml).
IMAGE_DEFAULT = "apache/kafka:4.3.1"
# Under /tmp, since neither image runs as root and this is writable in both.
_PROPERTIES_PATH = "/tmp/server.properties"  # noqa: S108 - inside a container of our own
_LOG_DIR = "/tmp/kafka"  # noqa: S108 - as above
# The example of Kafka's KRaft documentation; one for all, as no two clusters share a network.
_CLUSTER_ID = "MkU3OEVBNTcwNTJENDM2Qk"
# Format at the first start only, then become the broker, so that a signal to the container reaches Java.
_COMMAND = (
    f"/opt/kafka/bin/kafka-storage.sh format --ignore-formatted -t {_CLUSTER_ID} -c {_PROPERTIES_PATH}"
    f" && exec /opt/kafka/bin/kafka-server-start.sh {_PROPERTIES_PATH}"
)
# The heaps that serve the embedded brokers (bridge/dev/kafka.py).
_HEAP = {1: "-Xmx384m", 3: "-Xmx320m"}
_CLIENT_PORT, _BROKER_PORT, _CONTROLLER_PORT = 9092, 9093, 9094
# Three at once take 20 s on an idle machine with 2 cores; the limit for a hang.
_READY_TIMEOUT_S = 120.0
_POLL_S = 0.2
_LOG_LINES = 20


class DockerCluster:
    """Brokers 1 to n (1 or 3) on a separate bridge network; a `tests.cluster.Cluster`.

    Clients reach each at a port of 127.0.0.1 that does not change in a restart: the engine must be local.
    """

    def __init__(self, brokers: int, *, image: str | None = None) -> None:
        """Plan the cluster; nothing runs before `start`.

        Args:
            brokers: 1 or 3.
            image: One with Apache Kafka at /opt/kafka; by default the one that `DRX_TEST_KAFKA_IMAGE` names.
        """
        self._image = image or os.environ.get(IMAGE_VARIABLE) or IMAGE_DEFAULT
        self._heap = _HEAP[brokers]
        self._ports: dict[int, int] = {}
        for number in range(1, brokers + 1):
            self._ports[number] = free_port()
        self._containers: dict[int, DockerContainer] = {}
        self._running = ExitStack()

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(self._address(number) for number in self._ports)

    def start(self) -> None:
        with ExitStack() as undo:
            network = Network()
            # Network has no `close`, and an open socket fails a suite that takes warnings for errors.
            undo.callback(network._docker.client.close)
            undo.enter_context(network)
            for number in self._ports:
                container = self._container(number, network=network)
                undo.callback(container.stop)
                self._containers[number] = container.start()
            for number in self._ports:
                self._wait_ready(number, expect=set(self._ports))
            self._running = undo.pop_all()

    def stop(self) -> None:
        self._running.close()

    def kill_broker(self, number: int) -> None:
        """SIGKILL; its disk is kept."""
        self._containers[number].get_wrapped_container().kill()
        self._containers[number].wait()

    def start_broker(self, number: int) -> None:
        """Start a killed broker on its old disk; return when it responds."""
        self._containers[number].get_wrapped_container().start()
        self._wait_ready(number, expect={number})

    def pause_broker(self, number: int) -> None:
        """Freeze it: connections stay open, and new ones are accepted, but it does not respond."""
        self._containers[number].get_wrapped_container().pause()

    def resume_broker(self, number: int) -> None:
        self._containers[number].get_wrapped_container().unpause()

    def _address(self, number: int) -> str:
        return f"{HOST}:{self._ports[number]}"

    def _container(self, number: int, *, network: Network) -> DockerContainer:
        container = (
            DockerContainer(self._image)
            .with_network(network)
            .with_network_aliases(_alias(number))
            .with_env("KAFKA_HEAP_OPTS", self._heap)
            # The image's own entry point is left out: one way for every image, and what runs stands above.
            .with_kwargs(entrypoint=["/bin/sh", "-c", _COMMAND])
            .with_copy_into_container(_properties(number, ports=self._ports).encode(), _PROPERTIES_PATH)
        )
        # As Docker's client takes it; `with_bind_ports` knows no address and would publish on every interface.
        container.ports[f"{_CLIENT_PORT}/tcp"] = (HOST, self._ports[number])  # type: ignore[assignment] # see above
        return container

    def _wait_ready(self, number: int, *, expect: set[int]) -> None:
        container = self._containers[number]
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while not expect <= known_brokers(self._address(number)):
            container.reload()
            ended = container.status == "exited"
            if ended or time.monotonic() > deadline:
                how = "ended before it answered" if ended else f"did not answer within {_READY_TIMEOUT_S:.0f} s"
                log = container.get_wrapped_container().logs(tail=_LOG_LINES).decode("utf-8", "replace")
                msg = f"broker {number} ({self._image}) {how}; its last lines:\n{log}"
                raise RuntimeError(msg)
            time.sleep(_POLL_S)


def _alias(number: int) -> str:
    return f"broker-{number}"


def _properties(number: int, *, ports: Mapping[int, int]) -> str:
    """Configure a broker like the embedded ones, except for differences in a container."""
    same = server_properties(
        number,
        brokers=len(ports),
        ports={f"broker-{n}": port for n, port in ports.items()} | {f"controller-{n}": _CONTROLLER_PORT for n in ports},
    )
    # Two listeners, since peers of a broker have another address than clients on this machine.
    differs = {
        "controller.quorum.voters": ",".join(f"{n}@{_alias(n)}:{_CONTROLLER_PORT}" for n in ports),
        "listeners": f"CLIENT://:{_CLIENT_PORT},BROKER://:{_BROKER_PORT},CONTROLLER://:{_CONTROLLER_PORT}",
        "advertised.listeners": f"CLIENT://{HOST}:{ports[number]},BROKER://{_alias(number)}:{_BROKER_PORT}",
        "inter.broker.listener.name": "BROKER",
        "listener.security.protocol.map": "CLIENT:PLAINTEXT,BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": _LOG_DIR,
    }
    # Of a repeated key Java takes the last (java.util.Properties.load).
    return same + "".join(f"{name}={value}\n" for name, value in differs.items())
