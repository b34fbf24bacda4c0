"""Three brokers of this machine, and what a fault must know of them: who leads, and who controls."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from pathlib import Path

import orjson
from confluent_kafka.admin import AdminClient

from tests.cluster import EmbeddedCluster

BROKERS = 3
_ANSWER_S = 30.0
# A controlled shutdown moves the leaders away first; 2 s were seen.
_STOP_S = 60.0


class Brokers(EmbeddedCluster):
    """The cluster of the fault matrix, with a place for a proxy before each broker."""

    def __init__(self, directory: Path) -> None:
        """Keep data and logs below `directory`."""
        super().__init__(directory, brokers=BROKERS, detours=True)

    @property
    def detour_servers(self) -> str:
        """As `bootstrap_servers`, by way of the proxies."""
        return ",".join(f"127.0.0.1:{port}" for port, _ in self.detours.values())

    @property
    def admin(self) -> AdminClient:
        """A client for what only an operator does."""
        return AdminClient({"bootstrap.servers": self.bootstrap_servers, "log_level": 0})

    def busiest(self, topic: str) -> int:
        """The broker that leads most partitions of a topic."""
        partitions = self.admin.list_topics(topic, timeout=_ANSWER_S).topics[topic].partitions
        ((broker, _),) = Counter(each.leader for each in partitions.values() if each.leader > 0).most_common(1)
        return int(broker)

    def controller(self) -> int:
        """The broker that controls: whom the voter with the newest epoch has voted for or heard of."""
        states = []
        for number in self.brokers:
            with suppress(FileNotFoundError):
                path = self._home(number) / "log" / "__cluster_metadata-0" / "quorum-state"
                states.append(orjson.loads(path.read_bytes()))
        newest = max(states, key=lambda state: (state["leaderEpoch"], state["leaderId"]))
        return int(newest["leaderId"])

    def stop_broker(self, number: int) -> None:
        """SIGTERM, and wait: it hands its partitions over before it ends."""
        self.brokers[number].stop(_STOP_S)

    def heal(self) -> None:
        """Have every broker run; returns when each answers."""
        for broker in self.brokers.values():
            broker.resume()
            broker.start()
        for number in self.brokers:
            self._wait_ready(number, expect=set(self.brokers))
