import io
import json
import os
import re
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

import docker
import pytest
from docker.errors import BuildError

from bridge.dev.ports import free_port
from tests.builders import SECRET, a_body, signed_headers
from tests.cluster import Cluster, Topics, docker_answers
from tests.integration.service_process import HANG_S, until

pytestmark = [pytest.mark.kafka, pytest.mark.skipif(not docker_answers(), reason="no Docker engine answers")]

BASE_VARIABLE = "DRX_TEST_IMAGE_BASE"
"""Names the base where the one of the Dockerfile cannot be pulled."""
ROOT = Path(__file__).parents[2]
_REPOSITORY = "drx-bridge-test"
# The last thing that its shell does is to remove itself.
_WITHOUT_SHELL = (
    "ARG BASE\nFROM ${BASE}\nRUN rm -f /bin/sh /bin/dash /bin/bash /usr/bin/sh /usr/bin/dash /usr/bin/bash\n"
)


@dataclass(frozen=True, slots=True)
class OwnImage:
    """The image `name`, built on `base`, and `without_shell`, built on the same base without a shell."""

    client: Any
    base: str
    name: str
    without_shell: str


@contextmanager
def built_own_image() -> Iterator[OwnImage]:
    with closing(docker.from_env(timeout=600)) as client:
        named = os.environ.get(BASE_VARIABLE)
        base = named or _default_base()
        common = {"BASE": base}
        bare, name, without_shell = (f"{_REPOSITORY}:{tag}" for tag in ("bare", "own", "without-shell"))
        try:
            _build(client, name, path=str(ROOT), buildargs=common)
            _build(client, bare, fileobj=io.BytesIO(_WITHOUT_SHELL.encode()), buildargs={"BASE": base})
            _build(client, without_shell, path=str(ROOT), buildargs={**common, "RUNTIME": bare})
            yield OwnImage(client, base, name, without_shell)
        finally:
            for each in (without_shell, name, bare):
                for image in client.images.list(name=each):
                    client.images.remove(image.id, force=True)
            # The first stage has no name, and stands in the way of removing the base.
            client.images.prune(filters={"dangling": True, "label": "drx-bridge.stage=build"})


def _default_base() -> str:
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def _build(client: Any, tag: str, **how: Any) -> None:
    try:
        client.images.build(tag=tag, rm=True, **how)
    except BuildError as exc:
        log = "".join(line.get("stream", "") for line in exc.build_log)
        msg = f"{tag} does not build:\n{log}"
        raise RuntimeError(msg) from exc


SIZE_MAX_BYTES = 90_000_000
# What the chart asks for, as a container engine says it.
RESTRICTED: dict[str, Any] = {
    "read_only": True,
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
    "network_mode": "host",
}


@pytest.fixture(scope="module")
def image() -> Iterator[OwnImage]:
    with built_own_image() as built:
        yield built


@pytest.fixture
def cleanup() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def run(image: OwnImage, *command: str) -> str:
    output = image.client.containers.run(image.without_shell, list(command), remove=True, stderr=True, **RESTRICTED)
    return str(output.decode())


def a_folder(tmp_path: Path, name: str, content: dict[str, str]) -> str:
    """A folder as Kubernetes mounts a Secret: the group of the pod reads it, others do not."""
    place = tmp_path / name
    place.mkdir()
    for key, text in content.items():
        (place / key).write_text(text)
        (place / key).chmod(0o444)
    return str(place)


def status_of(url: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> int:
    try:
        with urlopen(Request(url, body, headers or {}), timeout=30) as answer:  # noqa: S310 - http to ourselves
            return int(answer.status)
    except HTTPError as exc:
        exc.close()
        return exc.code
    except (URLError, ConnectionError, TimeoutError):
        return 0


def test_it_is_small(image: OwnImage) -> None:
    sizes = {name: image.client.images.get(name).attrs["Size"] for name in (image.base, image.name)}

    assert 0 < sizes[image.name] - sizes[image.base] <= SIZE_MAX_BYTES


def test_it_says_what_it_is_and_runs_as_nobody_special(image: OwnImage) -> None:
    config = image.client.images.get(image.name).attrs["Config"]

    assert (config["User"], config["Cmd"]) == ("10001:10001", ["drx-bridge", "serve"])
    assert not config["Entrypoint"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "9090/tcp"}
    assert config["Labels"]["org.opencontainers.image.title"] == "drx-bridge"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_it_has_what_is_locked_and_its_bill_says_so(image: OwnImage) -> None:
    code = "import sys; sys.stdout.write(open('/usr/share/drx-bridge/sbom.cdx.json').read())"
    bill = json.loads(run(image, "python", "-c", code))
    locked = dict(re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE))

    found = {each["name"]: each["version"] for each in bill["components"] if each["purl"].startswith("pkg:pypi/")}
    assert found.items() <= locked.items()
    assert {"aiohttp", "aiokafka", "asyncpg", "uvloop"} <= set(found)
    assert bill["metadata"]["component"]["name"] == "drx-bridge"


def test_its_commands_run_without_a_shell(image: OwnImage) -> None:
    with pytest.raises(Exception, match="executable file not found"):
        run(image, "sh", "-c", "true")

    assert "drx-bridge" in run(image, "drx-bridge", "--version")
    assert "drx-consumer" in run(image, "drx-consumer", "--version")
    assert "--secret-file" in run(image, "drx-bridge", "simulate", "--help")


def test_the_ingress_runs_restricted_and_writes_nothing_to_its_root(
    image: OwnImage, cluster: Cluster, topics: Topics, tmp_path: Path, cleanup: ExitStack
) -> None:
    topics.standard()
    http, management = free_port(), free_port()
    secrets = a_folder(tmp_path, "secrets", {"current": SECRET})
    # A new volume takes over whose folder it covers: the one of the user of the image.
    volume = image.client.volumes.create(f"drx-bridge-test-{uuid4().hex}")
    cleanup.callback(volume.remove, force=True)
    environment = {
        "BRIDGE_KAFKA__BOOTSTRAP_SERVERS": cluster.bootstrap_servers,
        "BRIDGE_HTTP__HOST": "127.0.0.1",
        "BRIDGE_HTTP__PORT": str(http),
        "BRIDGE_MANAGEMENT__HOST": "127.0.0.1",
        "BRIDGE_MANAGEMENT__PORT": str(management),
        "BRIDGE_SOURCES__DRX__PROFILE": "drx_standard",
        "BRIDGE_SOURCES__DRX__ENVIRONMENT": "sandbox",
        "BRIDGE_SOURCES__DRX__SECRETS_DIR": "/etc/drx-bridge/sources/drx",
    }
    container = image.client.containers.run(
        image.without_shell,
        detach=True,
        environment=environment,
        volumes={
            secrets: {"bind": "/etc/drx-bridge/sources/drx", "mode": "ro"},
            volume.name: {"bind": "/var/lib/drx-bridge", "mode": "rw"},
        },
        **RESTRICTED,
    )
    cleanup.callback(container.remove, force=True)

    until(lambda: is_ready(container, management), what="readiness")
    body = a_body(id=f"image-{uuid4().hex}")
    webhook_id = json.loads(body)["id"]

    assert status_of(f"http://127.0.0.1:{http}/webhooks/drx", body, signed_headers(body, webhook_id=webhook_id)) == 200
    container.stop(timeout=int(HANG_S))
    assert container.wait(timeout=HANG_S)["StatusCode"] == 0, container.logs().decode()
    # None, or the folders that the engine itself makes to mount on.
    changed = [each["Path"] for each in container.diff() or []]
    assert all("/etc/drx-bridge/sources/drx".startswith(path) for path in changed), changed


def is_ready(container: Any, port: int) -> bool:
    container.reload()
    assert container.status in {"created", "running"}, container.logs().decode()
    return status_of(f"http://127.0.0.1:{port}/readyz") == 200
