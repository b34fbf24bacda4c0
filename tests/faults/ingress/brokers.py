"""Three local brokers, with their leaders and controller."""

from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import orjson
from confluent_kafka import ElectionType, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions  # type: ignore[attr-defined]  # its stub does not say what it hands on

from bridge.dev.ports import free_port
from tests.cluster import EmbeddedCluster
from tests.integration.service_process import until
from tests.kafka import limit_messages

BROKERS = 3
_ANSWER_S = 30.0
# A controlled shutdown moves the leaders away first; 2 s were seen.
_STOP_S = 60.0


class Brokers(EmbeddedCluster):
    """The cluster of the fault matrix, with ports for a proxy in front of each broker."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory, brokers=BROKERS)
        # Broker to the port at which its proxy must listen, and the one to which it must lead; both of loopback.
        self.detours = {number: (free_port(), free_port()) for number in self.brokers}

    def _prepare(self) -> None:
        """Let each broker also listen behind its proxy, and advertise the proxies to clients that use them."""
        super()._prepare()
        for number, (proxy, port) in self.detours.items():
            path = self._home(number) / "server.properties"
            lines = dict(line.split("=", 1) for line in path.read_text().splitlines())
            lines["listeners"] += f",DETOUR://127.0.0.1:{port}"
            lines["advertised.listeners"] += f",DETOUR://127.0.0.1:{proxy}"
            lines["listener.security.protocol.map"] += ",DETOUR:PLAINTEXT"
            path.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    @property
    def detour_servers(self) -> str:
        return ",".join(f"127.0.0.1:{port}" for port, _ in self.detours.values())

    @property
    def admin(self) -> AdminClient:
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def busiest(self, topic: str) -> int:
        leaders = [each.leader for each in self._partitions(topic).values()]
        ((broker, _),) = Counter(leader for leader in leaders if leader in self.brokers).most_common(1)
        return int(broker)

    def _partitions(self, topic: str) -> dict[int, Any]:
        return dict(self.admin.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions)

    def controller(self) -> int:
        """The active controller, from the voter with the newest epoch."""
        states = []
        for number in self.brokers:
            with suppress(FileNotFoundError):
                path = self._home(number) / "log" / "__cluster_metadata-0" / "quorum-state"
                states.append(orjson.loads(path.read_bytes()))
        newest = max(states, key=lambda state: (state["leaderEpoch"], state["leaderId"]))
        return int(newest["leaderId"])

    def prefer_first(self, topic: str) -> None:
        admin = self.admin  # the answer comes only as long as somebody holds it
        places = [TopicPartition(topic, number) for number in self._partitions(topic)]
        admin.elect_leaders(ElectionType.PREFERRED, places).result(_ANSWER_S)

    def widen(self, topic: str, partitions: int) -> None:
        admin = self.admin
        admin.create_partitions([NewPartitions(topic, partitions)])[topic].result(_ANSWER_S)

    def limit(self, topic: str, bytes_max: int) -> None:
        limit_messages(self.bootstrap_servers, topic, bytes_max)

    def delete(self, topic: str) -> None:
        """Delete a topic; return when no broker has it any more."""
        admin = self.admin
        admin.delete_topics([topic])[topic].result(_ANSWER_S)
        until(lambda: not self.has(topic), what="the end of a topic")

    def has(self, topic: str) -> bool:
        return topic in self.admin.list_topics(timeout=_ANSWER_S).topics

    def stop_broker(self, number: int) -> None:
        """SIGTERM, and wait: the broker moves its leaders before it ends."""
        self.brokers[number].grace_s = _STOP_S
        self.brokers[number].stop()

    def pause(self) -> None:
        for number in self.brokers:
            self.pause_broker(number)

    def resume(self) -> None:
        for number in self.brokers:
            self.resume_broker(number)

    def heal(self) -> None:
        self.resume()
        for broker in self.brokers.values():
            broker.start()
        for number in self.brokers:
            self._wait_ready(number, expect=set(self.brokers))
