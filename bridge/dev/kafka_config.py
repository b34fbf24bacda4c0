"""Configuration of one broker of the embedded cluster."""

from __future__ import annotations

from collections.abc import Mapping

from bridge.dev.ports import HOST

# Replicas that must have a record before it is acknowledged, and brokers that survive one loss: production's figures.
_REPLICATED_FROM = 3
_MIN_IN_SYNC = 2
# Seen serving: 380 MB resident for one broker, and three of the smaller beside a test suite.
_HEAP_ALONE, _HEAP_OF_MANY = "384m", "320m"

LOG4J = """\
status = error
appender.out.type = Console
appender.out.name = out
appender.out.layout.type = PatternLayout
appender.out.layout.pattern = %d{ISO8601} %-5p %c{1}: %m%n
rootLogger.level = warn
rootLogger.appenderRef.out.ref = out
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
logger.lifecycle.name = kafka.server.BrokerServer
logger.lifecycle.level = info
"""


def jvm_options(*, brokers: int) -> list[str]:
    """Options of every JVM that is started in a broker's directory, to which the paths are relative."""
    return [
        f"-Xmx{_HEAP_ALONE if brokers < _REPLICATED_FROM else _HEAP_OF_MANY}",
        "-XX:+UseSerialGC",  # threads of G1 cost more than they save on a heap this small
        "-XX:-UsePerfData",  # its file in /tmp outlives a kill
        "-Djava.awt.headless=true",
        "-Djava.io.tmpdir=tmp",
        "-Dlog4j2.configurationFile=log4j2.properties",
    ]


def server_properties(number: int, *, brokers: int, ports: Mapping[str, int]) -> str:
    """Text of `server.properties` of broker `number`; paths are relative, since Kafka splits `log.dirs` at commas.

    With a port `detour-N` the broker listens there too, and tells those who come that way to go on at port `proxy-N`.
    """
    replicas = min(brokers, _REPLICATED_FROM)
    in_sync = _MIN_IN_SYNC if brokers >= _REPLICATED_FROM else 1
    voters = ",".join(f"{n}@{HOST}:{ports[f'controller-{n}']}" for n in range(1, brokers + 1))
    client = f"PLAINTEXT://{HOST}:{ports[f'broker-{number}']}"
    controller = f"CONTROLLER://{HOST}:{ports[f'controller-{number}']}"
    detour, proxy = ports.get(f"detour-{number}"), ports.get(f"proxy-{number}")
    lines = {
        "process.roles": "broker,controller",
        "node.id": number,
        "controller.quorum.voters": voters,
        "controller.listener.names": "CONTROLLER",
        "listeners": f"{client},{controller}" + (f",DETOUR://{HOST}:{detour}" if detour else ""),
        "advertised.listeners": client + (f",DETOUR://{HOST}:{proxy}" if proxy else ""),
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,DETOUR:PLAINTEXT",
        "log.dirs": "log",
        "auto.create.topics.enable": "false",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        # 50 by default: each is a directory to open and to recover, and no group here is that busy.
        "offsets.topic.num.partitions": 6,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "transaction.state.log.num.partitions": 6,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 9 s by default: for so long a produce waits when a broker dies; development should not.
        "broker.session.timeout.ms": 3000,
        "broker.heartbeat.interval.ms": 1000,
        # 3 s by default, for members that start one by one in production.
        "group.initial.rebalance.delay.ms": 0,
    }
    return "".join(f"{name}={value}\n" for name, value in lines.items())
