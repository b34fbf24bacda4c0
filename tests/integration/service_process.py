"""A service of the project as a process, configured by environment and observed from outside."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, TypeVar
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import orjson
from prometheus_client.parser import text_string_to_metric_families

from bridge.dev.processes import spawn
from tests.forked import Forked, can_fork

T = TypeVar("T")

# Time limit of all expected events; generous, since the machine may be busy.
HANG_S = 120.0
PROBE_S = 30.0
# Interval of checks.
LOOK_MIN_S, LOOK_MAX_S = 0.05, 0.2
# No process of a test trusts the authorities of this machine, and aiohttp reads all of them at its import: 45 ms.
NO_AUTHORITIES = {"SSL_CERT_FILE": os.devnull}
# Part of each output that a failure shows: the directory is deleted after some more runs.
LAST_LINES = 40


class ServiceProcess:
    """One run, or several: `start` begins another after `kill` or `ended`. Ends with the context."""

    stdout: int | None = None  # its log, if not the first of its outputs

    def __init__(
        self, command: Sequence[str], env: Mapping[str, str], *, outputs: tuple[Path, Path], management_url: str
    ) -> None:
        self.env, self.management_url = dict(env), management_url
        self._command, self._outputs = list(command), outputs
        self._process = self._spawn()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, failure: BaseException | None, __: object) -> None:
        """End it without waiting for a graceful stop; a failure shows the end of its output."""
        self._process.kill()
        self._process.wait()
        if failure is not None:
            for path in self._outputs:
                failure.add_note("\n".join([f"the end of {path}:", *path.read_text().splitlines()[-LAST_LINES:]]))

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def start(self, **env: str) -> Self:
        assert not self.alive
        self._process = self._spawn(**env)
        return self

    def output(self) -> str:
        return "".join(path.read_text() for path in self._outputs)

    def complaints(self) -> str:
        return self._outputs[1].read_text()

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        found = [orjson.loads(line) for line in self._outputs[0].read_text().splitlines() if line.startswith("{")]
        return [line for line in found if event in {"", line["event"]}]

    def live(self) -> Self:
        until(lambda: self.asked("/livez")[0], what="a live process")
        return self

    def ready(self) -> Self:
        until(lambda: self.asked("/readyz")[0] == 200, what="readiness")
        return self

    def checks(self) -> dict[str, str]:
        """The checks of readiness; empty while the port is closed."""
        status, body = self.asked("/readyz")
        return dict(orjson.loads(body)["checks"]) if status else {}

    def metric(self, name: str, **labels: str) -> float:
        """Sum of the samples of that name whose labels include the given ones."""
        status, body = self.asked("/metrics")
        assert status == 200, "nobody answers"
        # Parsing all five hundred would take longer than the request.
        lines = "\n".join(line for line in body.decode().splitlines() if line.startswith(name))
        samples = [sample for family in text_string_to_metric_families(lines) for sample in family.samples]
        return sum(each.value for each in samples if each.name == name and labels.items() <= each.labels.items())

    def send_signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(HANG_S)

    def freeze(self) -> None:
        self.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.send_signal(signal.SIGCONT)

    def ended(self) -> int:
        """Wait for its end; return the exit code, which is negative after a signal that it did not handle."""
        return self._process.wait(HANG_S)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        self.send_signal(number)
        return await asyncio.to_thread(self.ended)

    def asked(self, path: str, *, url: str = "") -> tuple[int, bytes]:
        """Status and body of a request to the management port or `url`; status 0 while nobody listens there."""
        assert self.alive, self.output()
        try:
            with urlopen(Request(f"{url or self.management_url}{path}"), timeout=PROBE_S) as answer:  # noqa: S310 - http to ourselves
                return int(answer.status), answer.read()
        except HTTPError as exc:
            with exc:
                return exc.code, exc.read()
        except (URLError, ConnectionError, TimeoutError):
            return 0, b""

    def _spawn(self, **env: str) -> subprocess.Popen[bytes] | Forked:
        if self.stdout is None and can_fork(self._command, self.env | env):
            return Forked(self._command, self.env | env, self._outputs)
        with self._outputs[0].open("ab") as out, self._outputs[1].open("ab") as err:
            return spawn(self._command, env=self.env | env, stdout=self.stdout or out, stderr=err)


def until(found: Callable[[], T], *, what: str) -> T:
    """Poll until the condition is true; there is no event from another process."""
    began = time.monotonic()
    while not (answer := found()):
        waited = time.monotonic() - began
        assert waited < HANG_S, f"waited in vain: {what}"
        # Slow conditions are checked less often: each check costs both processes some milliseconds.
        time.sleep(min(LOOK_MAX_S, max(LOOK_MIN_S, waited / 20)))
    return answer
