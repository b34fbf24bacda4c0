"""A cluster to install the chart in: the one of `KUBECONFIG`, else one started here; with Kafka and PostgreSQL as pods.

Of a given cluster, the nodes' addresses must be reachable from here (node ports), and so must the registry that
`IMAGE_REPOSITORY` names, from here and from there. Its default storage class makes the volumes.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from uuid import uuid4

from bridge.dev.kafka import server_properties
from tests.builders import SECRET, a_body, signed_headers
from tests.chart.rendering import CHART, Values, load
from tests.chart.tools import helm
from tests.docker import images
from tests.docker.engine import open_engine
from tests.faults.ingress.oracle import Logged
from tests.faults.ingress.scene import logged
from tests.integration.service_process import until
from tests.kubernetes.node import Node, open_node
from tests.postgres import execute

# What the chart's pods satisfy by default, and the suite's own must, too.
RESTRICTED = "pod-security.kubernetes.io/enforce=restricted"
SOURCE = {"profile": "drx_standard", "environment": "sandbox", "existingSecret": "drx-webhook"}
TOPICS = ("drx.prescriptions.v1", "drx.accounts.v1")
RELEASE = "drx"
INGRESS = f"{RELEASE}-drx-bridge-ingress"
_WAIT = "--timeout=5m"
_KAFKA_START = (
    "/opt/kafka/bin/kafka-storage.sh format --ignore-formatted -t MkU3OEVBNTcwNTJENDM2Qk -c /etc/kafka/properties"
    " && exec /opt/kafka/bin/kafka-server-start.sh /etc/kafka/properties"
)


@dataclass(frozen=True)
class Kubernetes:
    kubeconfig: Path
    engine: Any  # a client of Docker
    node: Node | None  # if it is the one started here
    repository: str  # where images are pushed, if it is not

    def kubectl(self, *arguments: str, given: str = "") -> str:
        """Run a command; raise `RuntimeError` with what it says if it fails."""
        return _run("kubectl", *arguments, given=given, environment=self.environment)

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.kubectl("get", *arguments, "--output=json"))["items"]
        return found

    def apply(self, namespace: str, *objects: Mapping[str, Any]) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": objects}
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", given=json.dumps(listed))

    @property
    def environment(self) -> dict[str, str]:
        path = f"{self.node.path}:{os.environ['PATH']}" if self.node else os.environ["PATH"]
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "PATH": path}

    @property
    def address(self) -> str:
        (node, *_) = self.objects("nodes")
        return str(next(each["address"] for each in node["status"]["addresses"] if each["type"] == "InternalIP"))

    def image(self, make: Callable[..., str], **options: str) -> str:
        """Make an image and bring it to the cluster; return its name there."""
        tag = make(self.engine, **options)
        if self.node is None:
            name = f"{self.repository}/{tag}"
            self.engine.images.get(tag).tag(name)
            said = self.engine.images.push(name)
            assert '"error"' not in said, said
            return name
        if not self.node.has(tag):
            with TemporaryDirectory() as directory:
                archive = Path(directory) / "image.tar"
                with archive.open("wb") as file:
                    file.writelines(self.engine.images.get(tag).save(named=tag))
                self.node.take(str(archive))
        return tag

    @contextmanager
    def namespace(self, *, volumes: int = 0) -> Iterator[str]:
        """Create a namespace in which only restricted pods may run, and this many volumes for it."""
        name = f"drx-{uuid4().hex[:8]}"
        self.kubectl("create", "namespace", name)
        self.kubectl("label", "namespace", name, RESTRICTED)
        for _ in range(volumes if self.node else 0):
            assert self.node is not None
            self.node.add_volume()
        try:
            yield name
        finally:
            # Immediately: after a test nothing is worth an orderly end.
            self.kubectl("delete", "pods", "--all", f"--namespace={name}", "--grace-period=1", "--wait=false")
            self.kubectl("delete", "namespace", name, "--wait=false")


@dataclass(frozen=True)
class Site:
    """Kafka and PostgreSQL in a namespace of their own."""

    kubernetes: Kubernetes
    namespace: str
    address: str
    kafka_port: int
    postgres_port: int
    own: str  # the image under test

    @property
    def bootstrap_servers(self) -> str:
        return f"{self.address}:{self.kafka_port}"

    def kubectl(self, *arguments: str) -> str:
        return self.kubernetes.kubectl(f"--namespace={self.namespace}", *arguments)

    def database(self) -> "Database":
        name = f"test_{uuid4().hex}"
        execute(self._dsn(f"{self.address}:{self.postgres_port}", "postgres"), f'create database "{name}"')
        here, there = f"{self.address}:{self.postgres_port}", f"postgres.{self.namespace}:5432"
        return Database(here=self._dsn(here, name), there=self._dsn(there, name))

    def stop_kafka(self) -> None:
        self.kubectl("scale", "statefulset/kafka", "--replicas=0")
        self.kubectl("wait", "--for=delete", "pod/kafka-0", _WAIT)

    def start_kafka(self) -> None:
        self.kubectl("scale", "statefulset/kafka", "--replicas=1")
        self.kubectl("rollout", "status", "statefulset/kafka", _WAIT)

    @contextmanager
    def without_kafka(self) -> Iterator[None]:
        self.stop_kafka()
        try:
            yield
        finally:
            self.start_kafka()

    @contextmanager
    def release(self, *, volumes: int = 1, **options: Any) -> Iterator["Release"]:
        """Make a namespace with the Secrets of a release; nothing is installed yet."""
        with self.kubernetes.namespace(volumes=volumes) as namespace:
            release = Release(self, namespace, **options)
            for name, value in {
                "drx-webhook": {"current": SECRET},
                "drx-spool-key": {"current": f"spk_{'A' * 43}="},
                "drx-read-model-postgres": {"dsn": release.database.there},
            }.items():
                literals = [f"--from-literal={key}={text}" for key, text in value.items()]
                release.kubectl("create", "secret", "generic", name, *literals)
            yield release

    @staticmethod
    def _dsn(place: str, database: str) -> str:
        return f"postgresql://postgres:{_PASSWORD}@{place}/{database}"


@dataclass(frozen=True)
class Database:
    here: str
    there: str


_PASSWORD = "in-this-cluster-alone"


class Release:
    """A release of the chart, from the values of a trial (ci/sandbox-values.yaml)."""

    def __init__(self, site: Site, namespace: str, *, major: int = 4, chart: Path = CHART, image: str = "") -> None:
        self.site, self.namespace = site, namespace
        self.chart, self.image, self._major = chart, image or site.own, major
        self.database = site.database()

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return self.site.kubernetes.kubectl(f"--namespace={self.namespace}", *arguments, given=given)

    def apply(self, *objects: Mapping[str, Any]) -> None:
        self.site.kubernetes.apply(self.namespace, *objects)

    def helm(self, *arguments: str, given: str = "", major: int = 0) -> str:
        command = (helm(major or self._major), f"--namespace={self.namespace}", *arguments)
        return _run(*command, given=given, environment=self.site.kubernetes.environment)

    def values(self, **changes: Any) -> Values:
        """Return the trial's values for this cluster; dots of a name are double underscores."""
        repository, _, tag = self.image.rpartition(":")
        values = load("sandbox")
        values["image"] = {"repository": repository, "tag": tag}
        values["kafka"] |= {"bootstrapServers": f"kafka.{self.site.namespace}:9092", "partitions": 12}
        values["topicsJob"] = {"enabled": True}
        # As if a proxy ended TLS: the chart shows no port to the outside otherwise.
        values["ingress"] |= {"sources": {"drx": SOURCE}, "service": {"type": "NodePort"}, "http": {"tlsInFront": True}}
        values["consumers"]["read_model"] = {"enabled": False}
        for path, value in changes.items():
            *way, last = path.split("__")
            inner = values
            for name in way:
                inner = inner.setdefault(name, {})
            inner[last] = value
        return values

    def install(self, values: Values, *options: str) -> str:
        """Install or upgrade; return what Helm says."""
        arguments = ("upgrade", "--install", RELEASE, str(self.chart), "--values=-", _WAIT, *options)
        return self.helm(*arguments, given=json.dumps(values))

    def url(self, service: str = INGRESS, path: str = "/webhooks/drx") -> str:
        port = self.kubectl("get", "service", service, "--output=jsonpath={.spec.ports[0].nodePort}")
        return f"http://{self.site.address}:{port}{path}"

    def post(self, **changes: Any) -> str:
        """Post a delivery to `drx`; return its outcome, or nothing while no pod answers."""
        body = a_body(**{"id": f"evt_{uuid4().hex}", **changes})
        headers = signed_headers(body, webhook_id=json.loads(body)["id"])
        try:
            with urlopen(Request(self.url(), body, headers), timeout=30) as answer:  # noqa: S310 - ours
                return str(json.loads(answer.read())["outcome"])
        except HTTPError as exc:
            with exc:
                return str(json.loads(exc.read())["outcome"])
        except OSError:
            return ""

    def pods(self, component: str = "ingress") -> list[str]:
        selector = f"--selector=app.kubernetes.io/component={component}"
        return self.kubectl("get", "pods", selector, "--output=jsonpath={.items[*].metadata.name}").split()

    def metric(self, name: str, component: str = "ingress") -> float:
        """Return a metric's sum over the pods; raise `RuntimeError` while one of them does not answer."""
        return sum(
            float(value)
            for pod in self.pods(component)
            for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", self._asked(pod, "metrics"), re.MULTILINE)
        )

    def ready(self) -> None:
        """Return when the pods of the ingress are as they should be."""
        kind = self.kubectl("get", "statefulset,deployment", "--output=name").split()
        (workload,) = (each for each in kind if each.endswith(INGRESS))
        self.kubectl("rollout", "status", workload, _WAIT)

    def described(self, *words: str) -> None:
        """Wait for a line with all words in what `kubectl describe` shows of the pods."""
        until(lambda: _has(self.kubectl("describe", "pods"), words), what=str(words))

    def said(self, *words: str) -> None:
        """Wait for a log line with all words of a pod of the ingress."""
        until(lambda: any(_has(self.kubectl("logs", pod), words) for pod in self.pods()), what=str(words))

    async def log(self, source: str = "drx") -> list[Logged]:
        return await logged(self.site.bootstrap_servers, *TOPICS, source=source)

    def _asked(self, pod: str, path: str) -> str:
        return self.kubectl("get", f"--raw=/api/v1/namespaces/{self.namespace}/pods/{pod}:9090/proxy/{path}")


@contextmanager
def open_kubernetes() -> Iterator[Kubernetes]:
    given, repository = os.environ.get("KUBECONFIG"), os.environ.get("IMAGE_REPOSITORY", "")
    if given and not repository:
        sys.exit("KUBECONFIG is set: IMAGE_REPOSITORY must name where images are pushed, such as localhost:5001/drx")
    with open_engine() as engine, nullcontext() if given else open_node(pause=images.pause(engine)) as node:
        found = Kubernetes(node.kubeconfig if node else Path(str(given)), engine, node, repository)
        if node is not None:
            found.image(images.pause)
        yield found


@contextmanager
def open_site(kubernetes: Kubernetes) -> Iterator[Site]:
    with kubernetes.namespace(volumes=1) as namespace:
        address = kubernetes.address
        own = kubernetes.image(images.own)
        kafka, postgres = kubernetes.image(images.kafka), kubernetes.image(images.postgres)

        apply = partial(kubernetes.apply, namespace)

        def port_of(service: str, port: str) -> int:
            path = f"--output=jsonpath={{.spec.ports[?(@.name=='{port}')].nodePort}}"
            return int(kubernetes.kubectl("get", f"--namespace={namespace}", "service", service, path))

        apply(
            node_port("kafka", {"app": "kafka"}, inside=9092, outside=9094),
            node_port("postgres", {"app": "postgres"}, outside=5432),
        )
        kafka_port = port_of("kafka", "outside")
        apply(
            an_object("ConfigMap", "kafka", data={"properties": _properties(namespace, address, kafka_port)}),
            _workload("kafka", kafka, 9092, ["sh", "-c", _KAFKA_START], {"KAFKA_HEAP_OPTS": "-Xmx384m"}),
            _workload("postgres", postgres, 5432, ["start"], {"POSTGRES_PASSWORD": _PASSWORD, "PGDATA": "/data/pg"}),
        )
        for name in ("kafka", "postgres"):
            kubernetes.kubectl("rollout", f"--namespace={namespace}", "status", f"statefulset/{name}", _WAIT)
        yield Site(kubernetes, namespace, address, kafka_port, port_of("postgres", "outside"), own)


def _properties(namespace: str, address: str, port: int) -> str:
    """Configure the broker like the embedded one, with a listener for pods and one for this machine."""
    same = server_properties(1, brokers=1, ports={"broker-1": 9092, "controller-1": 9093})
    differs = {
        "listeners": "INSIDE://:9092,OUTSIDE://:9094,CONTROLLER://127.0.0.1:9093",
        "advertised.listeners": f"INSIDE://kafka.{namespace}:9092,OUTSIDE://{address}:{port}",
        "inter.broker.listener.name": "INSIDE",
        "listener.security.protocol.map": "INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "log.dirs": "/data/log",
    }
    # Of a repeated key Java takes the last (java.util.Properties.load).
    return same + "".join(f"{name}={value}\n" for name, value in differs.items())


def _has(text: str, words: tuple[str, ...]) -> bool:
    return any(all(word in line for word in words) for line in text.splitlines())


def an_object(kind: str, name: str, **content: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **content}


def node_port(name: str, selector: Mapping[str, str], **ports: int) -> dict[str, Any]:
    named = [{"name": each, "port": port} for each, port in ports.items()]
    # Kafka must reach itself by its name before it is ready.
    spec = {"type": "NodePort", "publishNotReadyAddresses": True, "selector": selector, "ports": named}
    return an_object("Service", name, spec=spec)


def restricted_pod(name: str, image: str, command: list[str], **container: Any) -> dict[str, Any]:
    """Return the spec of a pod as the profile `restricted` allows it."""
    allowed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    return {
        "securityContext": {
            "runAsNonRoot": True,
            **dict.fromkeys(("runAsUser", "runAsGroup", "fsGroup"), 10001),
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": 20,
        "containers": [{"name": name, "image": image, "command": command, "securityContext": allowed, **container}],
    }


def _workload(name: str, image: str, port: int, command: list[str], env: Mapping[str, str]) -> dict[str, Any]:
    mounts = [{"name": "data", "mountPath": "/data"}]
    if name == "kafka":
        mounts.append({"name": "settings", "mountPath": "/etc/kafka"})
    spec = restricted_pod(
        *(name, image, command),
        env=[{"name": key, "value": value} for key, value in env.items()],
        readinessProbe={"tcpSocket": {"port": port}, "periodSeconds": 1},
        volumeMounts=mounts,
    )
    spec["volumes"] = [{"name": "settings", "configMap": {"name": name, "optional": True}}]
    claim = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    if name != "kafka":
        spec["volumes"].append({"name": "data", "emptyDir": {}})
    return {
        **an_object("StatefulSet", name),
        "apiVersion": "apps/v1",
        "spec": {
            "selector": {"matchLabels": {"app": name}},
            "serviceName": name,
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            "volumeClaimTemplates": [{"metadata": {"name": "data"}, "spec": claim}] if name == "kafka" else [],
        },
    }


def _run(*command: str, given: str = "", environment: Mapping[str, str]) -> str:
    done = subprocess.run(  # noqa: S603 - our own command line
        command, input=given, capture_output=True, text=True, check=False, env=environment
    )
    if done.returncode:
        msg = f"{' '.join(command)} failed: {done.stderr}{done.stdout}"
        raise RuntimeError(msg)
    return done.stdout
