"""Runs a rendered pod as a process of this machine, the way a kubelet runs its container.

Of the pod it takes the command, the variables (no others are set but those of an image), the mounts, the probes, the
drain hook and the grace. It differs in what a process cannot have: mounts lie below a folder of the test, ports are
free ones of the loopback address, and the root is sealed by `sealed/sitecustomize.py` and not by the kernel.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from bridge.dev.ports import free_port
from bridge.dev.processes import spawn
from tests.chart.environment import variables
from tests.chart.rendering import Object, Rendered

Secrets = Mapping[str, Mapping[str, str]]
"""Name of a Secret to its keys and what is under them."""
_SEALED = Path(__file__).parent / "sealed"


class ProbeFailedError(Exception):
    """The kubelet would have killed the container, or kept traffic from it."""


class Pod:
    """One pod, started by `with`; what is left of it is killed at the end."""

    def __init__(
        self,
        rendered: Rendered,
        template: Object,
        *,
        name: str,
        directory: Path,
        secrets: Secrets,
        addresses: Mapping[str, str] | None = None,
        claim: Path | None = None,
    ) -> None:
        """Lay its mounts out; `addresses` has what answers at `http://service:port`, and `claim` outlives the pod."""
        spec = template["spec"]
        (self._container,) = spec["containers"]
        self._grace_s = int(spec.get("terminationGracePeriodSeconds", 30))
        self._root = directory / "root"
        self._root.mkdir(parents=True)
        self._writable: list[Path] = []
        self._claim = claim
        self._rewritten = dict(addresses or {})
        self.output_path = directory / "output"
        self._mount(rendered, spec.get("volumes", []), secrets)
        self._ports = {each["name"]: free_port() for each in self._container.get("ports", [])}
        self._command = [self._placed(word) for word in self._container["command"]]
        self._env = self._environment(variables(rendered, template, pod_name=name), name)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        executable = shutil.which(self._command[0], path=self._env["PATH"])
        assert executable is not None, f"{self._command[0]} is no command of ours"
        with self.output_path.open("wb") as output:
            self._process = spawn(
                [executable, *self._command[1:]], env=self._env, stdout=output, stderr=subprocess.STDOUT, cwd=self._root
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.wait()

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def url(self, port: str) -> str:
        return f"http://127.0.0.1:{self._ports[port]}"

    def output(self) -> str:
        return self.output_path.read_text(errors="replace")

    def started(self) -> Self:
        """Probe as the kubelet does until it may have traffic; raises where it would have been killed first."""
        self._probe("startupProbe")
        self._probe("livenessProbe")
        # A pod may be unready for as long as it likes; the bound is the test's.
        self._probe("readinessProbe", attempts=60)
        return self

    @property
    def drain_hook_s(self) -> float:
        return float(self._container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0))

    def delete(self) -> int:
        """End it as the kubelet does; return the exit code, that of a kill when the grace was not enough."""
        time.sleep(self.drain_hook_s)
        self._running.send_signal(signal.SIGTERM)
        try:
            return self._running.wait(self._grace_s - self.drain_hook_s)
        except subprocess.TimeoutExpired:
            self._running.kill()
            return self._running.wait()

    def ended(self, *, within_s: float) -> int:
        return self._running.wait(within_s)

    def _probe(self, kind: str, *, attempts: int | None = None) -> None:
        probe = self._container[kind]
        for _ in range(attempts or probe["failureThreshold"]):
            if self._running.poll() is not None:
                msg = f"it ended with {self._running.returncode}:\n{self.output()}"
                raise ProbeFailedError(msg)
            if self._answers(probe):
                return
            time.sleep(probe["periodSeconds"])
        msg = f"{kind}:\n{self.output()}"
        raise ProbeFailedError(msg)

    def _answers(self, probe: Object) -> bool:
        request = probe["httpGet"]
        try:
            with urlopen(f"{self.url(request['port'])}{request['path']}", timeout=probe["timeoutSeconds"]) as answer:  # noqa: S310 - http to ourselves
                return bool(200 <= answer.status < 400)
        except HTTPError as exc:
            exc.close()
            return False
        except (URLError, ConnectionError, TimeoutError):
            return False

    def _mount(self, rendered: Rendered, volumes: list[Object], secrets: Secrets) -> None:
        named = {volume["name"]: volume for volume in volumes}
        for mount in self._container.get("volumeMounts", []):
            # What is no volume of the pod is a claim of its StatefulSet.
            volume = named.get(mount["name"], {"persistentVolumeClaim": {}})
            claimed = self._claim if "persistentVolumeClaim" in volume else None
            place = claimed or self._root / mount["mountPath"].removeprefix("/")
            place.mkdir(parents=True, exist_ok=claimed is not None)
            self._rewritten[mount["mountPath"]] = str(place)
            if "secret" in volume:
                _lay(place, secrets[volume["secret"]["secretName"]])
            elif "configMap" in volume:
                for key, text in rendered.one("ConfigMap", volume["configMap"]["name"])["data"].items():
                    (place / key).write_text(text)
            if not mount.get("readOnly", False):
                self._writable.append(place)

    def _environment(self, given: Mapping[str, str], name: str) -> dict[str, str]:
        env = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}/usr/bin:/bin",
            "HOSTNAME": name,
            "PYTHONPATH": str(_SEALED),
            "SEALED_BUT_FOR": os.pathsep.join(str(place.resolve()) for place in self._writable),
            **{variable: self._placed(value) for variable, value in given.items()},
        }
        for each in self._container.get("ports", []):
            (variable,) = (one for one, value in given.items() if value == str(each["containerPort"]))
            env[variable] = str(self._ports[each["name"]])
            # Nothing that a test starts listens for others than ourselves.
            env[variable.replace("__PORT", "__HOST")] = "127.0.0.1"
        return env

    def _placed(self, text: str) -> str:
        """Replace what is somewhere else here: mounts, and services."""
        ways = "|".join(re.escape(each) for each in sorted(self._rewritten, key=len, reverse=True))
        return re.sub(rf"(^|=)({ways})(?=/|$)", lambda found: found[1] + self._rewritten[found[2]], text)


def _lay(place: Path, secret: Mapping[str, str]) -> None:
    """Lay a Secret out as the kubelet does: its keys are links into the folder that `..data` names."""
    fresh = place / "..first"
    fresh.mkdir()
    (place / "..data").symlink_to(fresh.name)
    for key, text in secret.items():
        (fresh / key).write_text(text)
        (fresh / key).chmod(0o440)
        (place / key).symlink_to(f"..data/{key}")


def template_of(rendered: Rendered, kind: str, suffix: str) -> Any:
    found = rendered.one(kind, suffix)
    return found if kind == "Pod" else found["spec"]["template"]
