"""Start the embedded stack in order, restart parts that die, publish its addresses, and stop it in reverse order."""

import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NoReturn

from bridge.dev.files import DataDirectory, claim, write_json, write_text
from bridge.dev.jars import JarCache
from bridge.dev.kafka import KafkaCluster, create_topics
from bridge.dev.ports import HOST, is_free, stable_ports
from bridge.dev.postgres import PostgresServer
from bridge.dev.processes import Child
from bridge.dev.programs import find_java, find_postgres
from bridge.dev.services import (
    CONSUMERS,
    PARTITIONS,
    services_of,
    shared_settings,
    wait_caught_up,
)
from bridge.dev.sources import SOURCES
from bridge.errors import ConfigError
from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC

TOPICS = (PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC, UNRECOGNIZED_TOPIC)

Say = Callable[[str], None]
# Seconds within which a killed process is noticed.
TEND_PERIOD_S = 0.2
# Seconds between two restarts: starting Python or a JVM takes about a second of CPU.
RESTART_EVERY_S = 3.0


@contextmanager
def timed(part: str, *, say: Say) -> Iterator[None]:
    """Print how long a part took to start."""
    started = time.monotonic()
    yield
    say(f"{time.monotonic() - started:6.1f} s  {part}")


@contextmanager
def open_stack(data_dir: Path, *, ingress_port: int | None = None, **options: Any) -> "Iterator[Stack]":
    """Start everything, yield the running stack, and stop everything at the end; `options` are those of `Stack`."""
    with ExitStack() as cleanup:
        directory = cleanup.enter_context(claim(data_dir))
        directory.endpoints.unlink(missing_ok=True)
        if ingress_port is not None and not is_free(ingress_port):
            raise ConfigError(f"--ingress-port {ingress_port}: in use")
        stack = Stack(directory, ingress_port=ingress_port, **options)
        cleanup.callback(stack.stop)
        stack.start()
        yield stack


class Stack:
    """The parts of a running stack."""

    def __init__(
        self,
        directory: DataDirectory,
        *,
        ingress_port: int | None,
        brokers: int = 1,
        consumers: bool = True,
        restart: bool = True,
        show_phi: bool = False,
        say: Say,
    ) -> None:
        self.directory = directory
        self._say = say
        self._restart = restart
        java, programs, jars = find_java(), find_postgres(), JarCache()
        jars.fetch(say=say)
        names = ("ingress", "management", "registry", "postgres", "receiver", "page", *CONSUMERS)
        ports = self._ports = stable_ports(directory.ports, names=names)
        if ingress_port is not None:
            ports["ingress"] = ingress_port
        self._cluster = KafkaCluster(
            directory.kafka, brokers=brokers, java=java, class_path=jars.class_path, logs=directory.logs
        )
        self._postgres = PostgresServer(
            directory.postgres, programs=programs, port=ports["postgres"], log=directory.logs / "postgres.log"
        )
        self.settings = shared_settings(directory) | {
            "BRIDGE_MANAGEMENT__HOST": HOST,
            "BRIDGE_MANAGEMENT__PORT": str(ports["management"]),
            "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": self._cluster.bootstrap_servers,
            "CONSUMER_POSTGRES__DSN": self._postgres.dsn,
            "CONSUMER_FORWARD__URL": f"http://{HOST}:{ports['receiver']}",
        }
        """Settings of this stack for consumers and an operator's commands."""
        self._services = services_of(directory, ports, self.settings, consumers=consumers, show_phi=show_phi)

    @property
    def endpoints(self) -> dict[str, Any]:
        """The content of `endpoints.json`: the address of each running part."""
        found: dict[str, Any] = {}
        # A service that will be restarted keeps its address.
        urls = {name: each.url for name, each in self._services.items() if self._restart or each.alive}
        if "ingress" in urls:
            found["ingress"] = f"http://{HOST}:{self._ports['ingress']}"
            found["management"] = urls["ingress"]
        if consumers := {name: urls[name] for name in CONSUMERS if name in urls}:
            found |= {"consumers": consumers, "lake": str(self.directory.lake)}
        found["bootstrap_servers"] = self._cluster.bootstrap_servers
        found |= {name: urls[name] for name in ("registry", "receiver", "page") if name in urls}
        if self._restart or self._postgres.alive:
            found["postgres"] = self._postgres.dsn
        found["sources"] = {
            name: source.endpoint(name, self.directory.secret_dir(name, make=source.new_secret) / "current")
            for name, source in SOURCES.items()
        }
        found["pids"] = {child.name: child.pid for child in self._children if child.pid is not None}
        found["logs"] = str(self.directory.logs)
        return found

    def start(self) -> None:
        """Start the parts in order, each once its dependencies are ready, and publish the endpoints."""
        with timed(f"PostgreSQL, {HOST}:{self._ports['postgres']}", say=self._say):
            self._postgres.start()
            self._postgres.wait_ready()
        with timed(f"Kafka, {len(self._cluster.brokers)} broker(s), {self._cluster.bootstrap_servers}", say=self._say):
            self._cluster.start()
        with timed(f"{len(TOPICS)} topics of {PARTITIONS} partitions", say=self._say):
            create_topics(self._cluster.bootstrap_servers, dict.fromkeys(TOPICS, PARTITIONS))
        with timed(", ".join(self._services), say=self._say):
            for service in self._services.values():
                service.start()
            for service in self._services.values():
                service.wait_ready()
        if left := wait_caught_up(self._ports["management"]):
            self._say(f"{left} partitions are still spooled; see {self._services['ingress'].log}")
        self._publish()

    def keep_up(self) -> NoReturn:
        """Restart parts that die, until a signal raises."""
        dead: set[Child] = set()
        while True:
            changed = [self._tend(child, dead) for child in self._children]
            if any(changed):
                self._publish()
            time.sleep(TEND_PERIOD_S)

    def _tend(self, child: Child, dead: set[Child]) -> bool:
        """Restart a child if it died; return whether its pid has changed."""
        if child.alive:
            return False
        if child not in dead:
            dead.add(child)
            self._say(f"{child.name} ended with {child.exit_code}; see {child.log}")
            return True
        if not self._restart or time.monotonic() < child.started_at + RESTART_EVERY_S:
            return False
        child.start()
        dead.discard(child)
        self._say(f"{child.name} started again, pid {child.pid}")
        return True

    def stop_brokers(self) -> None:
        """Kill all brokers, like a power failure, until `start_brokers`."""
        self._cluster.kill()
        self._publish()

    def start_brokers(self) -> None:
        """Start the brokers again; return when they respond."""
        self._cluster.start()
        self._publish()

    def restart_ingress(self, settings: Mapping[str, str]) -> None:
        """Add settings for the ingress and commands, restart the ingress, and return when it is ready."""
        self.settings |= settings
        ingress = self._services["ingress"]
        ingress.env |= settings
        ingress.stop()
        ingress.start()
        ingress.wait_ready()
        self._publish()

    def stop(self) -> None:
        """Stop all parts: the ones that accept deliveries first, the ones that store them last."""
        self.directory.endpoints.unlink(missing_ok=True)
        for service in reversed(self._services.values()):
            service.stop()
        self._cluster.stop()
        self._postgres.stop()

    @property
    def _children(self) -> list[Child]:
        return [*self._cluster.brokers.values(), self._postgres, *self._services.values()]

    def _publish(self) -> None:
        endpoints, programs = self.endpoints, shlex.quote(str(Path(sys.executable).parent))
        settings = self.settings | {"INGRESS": endpoints.get("ingress", "")}
        exports = [f"export {name}={shlex.quote(text)}\n" for name, text in settings.items()]
        write_text(self.directory.env, "".join([*exports, f'export PATH={programs}:"$PATH"\n']))
        write_json(self.directory.endpoints, endpoints)
