"""A Kubernetes of one node on this machine: compiled from Go modules, started as root, and gone without a trace.

All of it runs in namespaces of its own (network, mounts, processes): rules, routes, mounts and containers end with the
process that holds them. The network has no way out; this machine alone reaches it, at `ADDRESS`, by node ports.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from bridge.dev.jars import cache_dir
from bridge.dev.processes import Child
from tests.freezing import freeze, thaw

PROGRAMS = Path(__file__).with_name("programs")
_VERSION = "1.36.3"  # of k8s.io/kubernetes in programs/go.mod
_LINK = "-X k8s.io/component-base/version.git"
_PACKAGES = (
    "github.com/cloudnativelabs/kube-router/v2/cmd/kube-router",
    "github.com/coredns/coredns",
    "go.etcd.io/etcd/server/v3",
    *(f"k8s.io/kubernetes/cmd/kube{name}" for name in ("-apiserver", "-controller-manager", "-proxy", "-scheduler")),
    *(f"k8s.io/kubernetes/cmd/kube{name}" for name in ("ctl", "let")),
)
_DEBIAN = ("containerd", "containernetworking-plugins", "ipset", "iptables", "runc")
NAME = "node"
ADDRESS, _HERE = "10.89.0.2", "10.89.0.1"
_PODS, _SERVICES, _DNS = "10.88.0.0/16", "10.96.0.0/16", "10.96.0.10"
_LINK_NAME = "drx-node"
# The kernel ends hundreds of processes and removes their namespaces.
_ENDED_S = 60.0
# Process 1 of the namespaces: what is not ours to see is covered, and what has lost its parent is reaped.
_HOLDER = """
import os, subprocess, time
for place in ("/run/containerd", "/var/lib/cni", "/var/log"):
    os.makedirs(place, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", place], check=True)
subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
open("/proc/sys/net/ipv4/ip_forward", "w").write("1")
open("ready", "w").close()
while True:
    try:
        os.wait()
    except ChildProcessError:
        time.sleep(0.5)
"""
# The image that holds a pod's namespaces is ours; without CAP_SYS_RESOURCE no container could start otherwise.
_CONTAINERD = """\
version = 2
root = "{root}"
state = "{here}/state"
[grpc]
address = "{here}/containerd.sock"
[plugins."io.containerd.internal.v1.opt"]
path = "{here}/opt"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "docker.io/library/{pause}"
restrict_oom_score_adj = true
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{here}/cni"
"""
# Not `bridge`: without bridge netfilter, a pod does not reach another one of its bridge through a Service.
_CNI = {
    "cniVersion": "0.4.0",
    "name": "pods",
    "plugins": [
        {
            "type": "ptp",
            "ipam": {"type": "host-local", "subnet": "10.88.0.0/24", "routes": [{"dst": "0.0.0.0/0"}]},
        }
    ],
}
_COREFILE = f"""\
.:53 {{
    bind {ADDRESS}
    kubernetes cluster.local {{
        kubeconfig kubeconfig
    }}
}}
"""
# CoreDNS is no pod, so its Service has an endpoint by hand. Volumes are folders of this machine.
_OBJECTS = f"""\
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {{name: kube-dns, namespace: kube-system}}
  spec:
    clusterIP: {_DNS}
    ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53}}]
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {{name: kube-dns, namespace: kube-system, labels: {{kubernetes.io/service-name: kube-dns}}}}
  addressType: IPv4
  endpoints: [{{addresses: [{ADDRESS}]}}]
  ports: [{{name: dns, port: 53, protocol: UDP}}, {{name: dns-tcp, port: 53, protocol: TCP}}]
- apiVersion: storage.k8s.io/v1
  kind: StorageClass
  metadata: {{name: folders, annotations: {{storageclass.kubernetes.io/is-default-class: "true"}}}}
  provisioner: kubernetes.io/no-provisioner
"""


class Node:
    def __init__(self, directory: Path, *, pause: str) -> None:
        self._here = directory
        self._programs = _built()
        self.kubeconfig = directory / "kubeconfig"
        self._children: list[Child] = []
        self._held: psutil.Process | None = None  # process 1 of the namespaces
        self._volumes = 0
        self._write(pause)

    @property
    def path(self) -> str:
        """Return where its `kubectl` is."""
        return str(self._programs)

    def start(self) -> None:
        holding = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"]
        holder = self._start("holder", [*holding, sys.executable, "-c", _HOLDER])
        holder.wait_until((self._here / "ready").exists)
        (self._held,) = psutil.Process(holder.pid).children()
        held = str(self._held.pid)
        self._inside = ["nsenter", f"--target={held}", "--mount", "--net", "--pid", "--wd"]
        _run("ip", "link", "add", _LINK_NAME, "type", "veth", "peer", "name", "eth0", "netns", held)
        _run("ip", "address", "add", f"{_HERE}/30", "dev", _LINK_NAME)
        _run("ip", "link", "set", _LINK_NAME, "up")
        _run(*self._inside, "ip", "address", "add", f"{ADDRESS}/30", "dev", "eth0")
        _run(*self._inside, "ip", "link", "set", "eth0", "up")
        self._start_inside("containerd", "--config", "containerd.toml").wait_until(self._forget_containers)
        self._start_inside(
            *("server", "--data-dir=etcd", "--unsafe-no-fsync", "--listen-peer-urls=http://127.0.0.1:2380"),
            *("--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379"),
        )
        self._start_inside(
            *("kube-apiserver", "--etcd-servers=http://127.0.0.1:2379", "--cert-dir=certificates"),
            *(f"--bind-address={ADDRESS}", f"--advertise-address={ADDRESS}", "--token-auth-file=tokens"),
            *("--authorization-mode=RBAC", f"--service-cluster-ip-range={_SERVICES}", "--allow-privileged"),
            *("--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=accounts.pem"),
            *("--service-account-signing-key-file=accounts.pem", "--kubelet-preferred-address-types=InternalIP"),
        ).wait_until(lambda: self._answers("get", "--raw=/readyz"))
        known = "--kubeconfig=kubeconfig"
        self._start_inside(
            *("kube-controller-manager", known, "--root-ca-file=certificates/apiserver.crt", "--allocate-node-cidrs"),
            *("--service-account-private-key-file=accounts.pem", f"--cluster-cidr={_PODS}"),
        )
        self._start_inside("kube-scheduler", known)
        self._start_inside(
            *("kube-proxy", known, f"--hostname-override={NAME}", f"--cluster-cidr={_PODS}", "--proxy-mode=iptables"),
            *("--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0"),
            "--conntrack-tcp-timeout-close-wait=0",
        )
        self._start_inside("coredns", "-conf", "Corefile")
        self.kubectl("apply", "--filename=-", given=_OBJECTS)
        self._kubelet = self._start_inside(
            *("kubelet", known, "--config=kubelet.json", f"--node-ip={ADDRESS}", f"--hostname-override={NAME}"),
            f"--root-dir={self._here}/kubelet",
        )
        self._kubelet.wait_until(lambda: self._answers("wait", "--for=condition=Ready", f"node/{NAME}", "--timeout=1s"))

    def stop(self) -> None:
        """End it: the kernel ends with the holder all that ran there, and removes mounts, interfaces and rules."""
        for child in reversed(self._children):
            child.kill()
        if self._held is not None:
            psutil.wait_procs([self._held], timeout=_ENDED_S)
        for place in sorted(Path("/sys/fs/cgroup").glob("**/kubepods"), reverse=True):
            for each in (*sorted((path for path in place.rglob("*") if path.is_dir()), reverse=True), place):
                with suppress(OSError):  # another kubelet's
                    each.rmdir()

    def enforce_policies(self) -> None:
        """Enforce network policies from now on."""
        self._start_inside(
            *("kube-router", "--kubeconfig=kubeconfig", "--run-firewall", "--run-router=false"),
            *("--run-service-proxy=false", f"--hostname-override={NAME}", f"--service-cluster-ip-range={_SERVICES}"),
            "--health-port=0",
        )

    def has(self, tag: str) -> bool:
        return f"docker.io/library/{tag}" in self._ctr("images", "list", "--quiet").split()

    def take(self, archive: str) -> None:
        """Add the images of a file that `docker save` wrote."""
        self._ctr("images", "import", archive)

    def add_volume(self, size: str = "2Gi", *, place: Path | None = None) -> None:
        """Offer one more volume, in a folder of its own."""
        self._volumes += 1
        name = f"volume-{self._volumes}"
        folder = place or self._here / "volumes" / name
        folder.mkdir(parents=True, exist_ok=True)
        here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "folders",
            "local": {"path": str(folder)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        }
        volume = {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": spec}
        self.kubectl("apply", "--filename=-", given=json.dumps(volume))

    @contextmanager
    def without_kubelet(self) -> Iterator[None]:
        frozen = [process.pid for process in psutil.Process(self._kubelet.pid).children()]
        for pid in frozen:
            freeze(pid)
        try:
            yield
        finally:
            for pid in frozen:
                thaw(pid)

    def kubectl(self, *arguments: str, given: str = "") -> str:
        return _run(f"{self._programs}/kubectl", f"--kubeconfig={self.kubeconfig}", *arguments, given=given)

    def _answers(self, *arguments: str) -> bool:
        with suppress(RuntimeError):
            self.kubectl(*arguments)
            return True
        return False

    def _forget_containers(self) -> bool:
        """Remove containers of an earlier run, once containerd answers."""
        with suppress(RuntimeError):
            if left := self._ctr("containers", "list", "--quiet").split():
                self._ctr("containers", "rm", *left)
            return True
        return False

    def _ctr(self, *arguments: str) -> str:
        return _run("ctr", f"--address={self._here}/containerd.sock", "--namespace=k8s.io", *arguments)

    def _start_inside(self, name: str, *arguments: str) -> Child:
        program = self._programs / name
        return self._start(name, [*self._inside, str(program) if program.exists() else name, *arguments])

    def _start(self, name: str, command: Sequence[str]) -> Child:
        child = Child(name, command=command, cwd=self._here, log=self._here / f"{name}.log", env=_environment())
        self._children.append(child)
        child.start()
        return child

    def _write(self, pause: str) -> None:
        token, here = secrets.token_hex(16), self._here
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        named: Mapping[str, str] = {"name": "node"}
        server = {"server": f"https://{ADDRESS}:6443", "certificate-authority": f"{here}/certificates/apiserver.crt"}
        kubeconfig = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{**named, "cluster": server}],
            "users": [{**named, "user": {"token": token}}],
            "contexts": [{**named, "context": {"cluster": "node", "user": "node"}}],
            "current-context": "node",
        }
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "failCgroupV1": False,
            "cgroupDriver": "cgroupfs",
            "failSwapOn": False,
            "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
            "imageGCHighThresholdPercent": 100,
            "containerRuntimeEndpoint": f"unix://{here}/containerd.sock",
            "clusterDNS": [_DNS],
            "clusterDomain": "cluster.local",
            "podLogsDir": f"{here}/pods",
            "resolvConf": "",
            # Reached from this machine and its pods alone.
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
        }
        (here / "cni").mkdir()
        contents = {
            "accounts.pem": key.private_bytes(serialization.Encoding.PEM, *private).decode(),
            "tokens": f'{token},tests,tests,"system:masters"\n',
            "kubeconfig": json.dumps(kubeconfig),
            "kubelet.json": json.dumps(kubelet),
            "containerd.toml": _CONTAINERD.format(root=_cache() / "containerd", here=here, pause=pause),
            "cni/10-pods.conflist": json.dumps(_CNI),
            "Corefile": _COREFILE,
        }
        for name, text in contents.items():
            (here / name).write_text(text)


@contextmanager
def open_node(*, pause: str) -> Iterator[Node]:
    """Start a node for the block; its images stay in the cache."""
    missing = [
        program for program in ("containerd", "runc", "iptables", "ip", "unshare", "nsenter") if not _find(program)
    ]
    if os.geteuid() != 0 or missing:
        sys.exit(f"without KUBECONFIG, a cluster is started here: that takes root, and {', '.join(_DEBIAN)} of Debian")
    # Not below a directory with a long name: the path of a socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="drx-node-") as directory:
        node = Node(Path(directory), pause=pause)
        try:
            node.start()
            yield node
        finally:
            node.stop()


def _built() -> Path:
    """Return the folder with the programs, compiled once for this machine: ten minutes of two processors."""
    locked = b"".join((PROGRAMS / name).read_bytes() for name in ("go.mod", "go.sum"))
    place = _cache() / f"programs-{hashlib.sha256(locked + repr(_PACKAGES).encode()).hexdigest()[:12]}"
    if not place.exists():
        if shutil.which("go") is None:
            sys.exit("without KUBECONFIG, Kubernetes is compiled: that takes Go")
        major, minor, _ = _VERSION.split(".")
        known = f"-s -w {_LINK}Version=v{_VERSION} {_LINK}Major={major} {_LINK}Minor={minor}"
        with tempfile.TemporaryDirectory(dir=_cache()) as scratch:
            command = [
                "nice",
                "-n",
                "10",
                "go",
                "build",
                "-mod=readonly",
                "-trimpath",
                "-ldflags",
                known,
                "-o",
                scratch,
            ]
            environment = {**os.environ, "CGO_ENABLED": "0"}
            subprocess.run([*command, *_PACKAGES], cwd=PROGRAMS, env=environment, check=True)  # noqa: S603 - ours
            shutil.copytree(scratch, place.with_suffix(".new"), dirs_exist_ok=True)
        place.with_suffix(".new").rename(place)
    return place


def _cache() -> Path:
    place = cache_dir() / "kubernetes"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _find(program: str) -> str | None:
    return shutil.which(program, path=_environment()["PATH"])


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _run(*command: str, given: str = "") -> str:
    done = subprocess.run(  # noqa: S603 - our own command line
        command, input=given, capture_output=True, text=True, check=False, env=_environment()
    )
    if done.returncode:
        msg = f"{' '.join(command)} failed: {done.stderr or done.stdout}"
        raise RuntimeError(msg)
    return done.stdout
