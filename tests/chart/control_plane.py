"""A real API server of Kubernetes, with its admission and its storage, and nothing that would run a pod.

`python -m tests.chart.control_plane` builds it, once for this machine, by the hashes of `control_plane/go.sum`.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.dev.jars import cache_dir
from bridge.dev.ports import free_port

_MODULE = Path(__file__).with_name("control_plane")
_SUMS = hashlib.sha256((_MODULE / "go.sum").read_bytes()).hexdigest()[:12]
_HOME = cache_dir() / "chart" / f"control-plane-{_SUMS}"
# As `go build` calls it, after the last part of its path.
_ETCD = "server"
_START_S = 120


class Answer(NamedTuple):
    """What the server says of one object."""

    status: int
    warnings: list[str]
    document: Any


class ApiServer:
    """Where objects are given in."""

    def __init__(self, *, port: int, token: str, certificate: Path) -> None:
        """Speak as one who may do all."""
        self._url = f"https://127.0.0.1:{port}"
        self._token = token
        self._certificate = certificate
        self._context = ssl.create_default_context(cafile=str(certificate))
        self._plural = cache(self._asked_plural)

    def call(self, method: str, path: str, document: object = None) -> Answer:
        """Send one request; refusals are answers too."""
        headers = {"Authorization": f"Bearer {self._token}", "Content-Type": "application/json"}
        body = None if document is None else json.dumps(document).encode()
        request = Request(self._url + path, data=body, headers=headers, method=method)  # noqa: S310 - https to ourselves
        try:
            answer = urlopen(request, context=self._context, timeout=30)  # noqa: S310 - as above
        except HTTPError as exc:
            answer = exc
        with answer:
            return Answer(answer.status, answer.headers.get_all("Warning", []), json.load(answer))

    def create(self, each: dict[str, Any]) -> Answer:
        """Create an object, and let no unknown field pass."""
        version, kind, namespace = each["apiVersion"], each["kind"], each["metadata"].get("namespace")
        place = f"/namespaces/{namespace}" if namespace else ""
        path = f"{_root(version)}{place}/{self._plural(version, kind)}?fieldValidation=Strict"
        return self.call("POST", path, each)

    def kubeconfig(self) -> dict[str, Any]:
        """Return what kubectl and Helm need to speak to it."""
        cluster = {"server": self._url, "certificate-authority": str(self._certificate)}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "me", "user": {"token": self._token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "here",
        }

    def _asked_plural(self, version: str, kind: str) -> str:
        resources = self.call("GET", _root(version)).document["resources"]
        return str(next(each["name"] for each in resources if each["kind"] == kind and "/" not in each["name"]))


def is_built() -> bool:
    """Tell whether there is one to run."""
    return _HOME.exists()


def build() -> None:
    """Build it by the toolchain on the PATH, which takes a quarter of an hour and a gigabyte."""
    go = shutil.which("go")
    if go is None:
        sys.exit("Go is not here; Kubernetes says in control_plane/go.mod which version it needs")
    _HOME.parent.mkdir(parents=True, exist_ok=True)
    (version,) = re.findall(r"k8s\.io/kubernetes (v\S+)", (_MODULE / "go.mod").read_text())
    # Its own build says this the same way; Helm asks for it.
    flags = f"-s -w -X k8s.io/component-base/version.gitVersion={version}"
    with tempfile.TemporaryDirectory(dir=_HOME.parent) as scratch:
        command = [go, "build", "-trimpath", f"-ldflags={flags}", "-o", f"{scratch}/bin/", "tool"]
        subprocess.run(command, cwd=_MODULE, check=True)  # noqa: S603 - our own command line
        (Path(scratch) / "bin").rename(_HOME)


@contextmanager
def running(directory: Path) -> Iterator[ApiServer]:
    """Run one, that keeps what it needs in `directory`, on free ports of the loopback address."""
    client, peer, port = free_port(), free_port(), free_port()
    store = f"http://127.0.0.1:{client}"
    token, key = secrets.token_hex(16), directory / "accounts.pem"
    key.write_bytes(_private_key())
    (directory / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
    etcd = [
        f"--data-dir={directory / 'etcd'}",
        f"--listen-client-urls={store}",
        f"--advertise-client-urls={store}",
        f"--listen-peer-urls=http://127.0.0.1:{peer}",
        # What is stored need not outlive the test.
        "--unsafe-no-fsync",
    ]
    server = [
        f"--etcd-servers={store}",
        "--bind-address=127.0.0.1",
        f"--secure-port={port}",
        f"--cert-dir={directory / 'certificates'}",
        f"--token-auth-file={directory / 'tokens.csv'}",
        "--authorization-mode=RBAC",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-account-key-file={key}",
        f"--service-account-signing-key-file={key}",
        "--service-cluster-ip-range=10.96.0.0/16",
        # It would want an address that others reach.
        "--endpoint-reconciler-type=none",
    ]
    with ExitStack() as stack:
        stack.enter_context(_process(directory / "etcd.log", _ETCD, *etcd))
        process = stack.enter_context(_process(directory / "server.log", "kube-apiserver", *server))
        yield _ready(process, directory, port=port, token=token)


def _root(version: str) -> str:
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def _private_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.TraditionalOpenSSL
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@contextmanager
def _process(log: Path, name: str, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - our own command line
            [str(_HOME / name), *options], stdout=output, stderr=subprocess.STDOUT, cwd=log.parent
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()


def _ready(process: subprocess.Popen[bytes], directory: Path, *, port: int, token: str) -> ApiServer:
    certificate = directory / "certificates" / "apiserver.crt"
    until = time.monotonic() + _START_S
    while process.poll() is None and time.monotonic() < until:
        try:
            server = ApiServer(port=port, token=token, certificate=certificate)
            if server.call("GET", "/api/v1/namespaces/default").status == 200:
                return server
        except (OSError, URLError, ValueError):
            pass
        time.sleep(0.2)
    msg = f"no API server:\n{(directory / 'server.log').read_text(errors='replace')[-3000:]}"
    raise RuntimeError(msg)


if __name__ == "__main__":
    if not is_built():
        build()
