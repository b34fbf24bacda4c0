"""A real HAPI FHIR R4 server with its validator, in memory or on a file: the peer of the consumer `fhir`.

`python -m tests.fhir.hapi` (`make fhir-server`) fetches its jars, 290 MB, each with the sum of the lock, and compiles
`HapiServer.java`; where that was not done, tests run against `tests.fhir.fake` alone.
"""

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from bridge.dev.ports import free_port
from bridge.dev.processes import launched
from tests.java_cache import SHORT_LIVED
from tests.java_program import JavaProgram
from tests.kafka import HANG_S

LOCK = Path(__file__).with_name("hapi.lock.toml")
_PROGRAM = JavaProgram("hapi", LOCK, Path(__file__).with_name("HapiServer.java"))
is_built, build = _PROGRAM.is_built, _PROGRAM.build
# Of a server that keeps some thousand resources in memory; it takes 1.4 GB by itself without a bound.
_OPTIONS = ("-Xmx1g",)
# It loads 250 jars and makes 100 tables, in 15 s of CPU; compiled for a long run, in 34 s.
SHORT_RUN, LONG_RUN = ("-XX:+UseSerialGC", SHORT_LIVED), ("-XX:+UseParallelGC",)
START_S = 5 * HANG_S
_POLL_S = 0.1


class HapiServer:
    """A server that ends with the process that started it; `start` and `stop` block."""

    def __init__(
        self,
        directory: Path,
        *,
        token: str = "",
        kept: bool = False,
        does: tuple[str, ...] = (),
        options: tuple[str, ...] = SHORT_RUN,
    ) -> None:
        """Write a log to `directory`; with `token` requests need it, and `kept` resources outlive a stop.

        What it `does` besides is `server-ids` (choose them all) and `validate` (refuse what is no valid R4).
        """
        self._directory = directory
        self._options = (*_OPTIONS, *options)
        self._token = token
        self._does = does
        self._database = f"jdbc:h2:file:{directory / 'hapi'}" if kept else "jdbc:h2:mem:hapi"
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Base URL."""
        return f"http://127.0.0.1:{self._port}/fhir"

    def start(self) -> None:
        """Return when it answers."""
        log = self._directory / "hapi.log"
        with log.open("ab") as output:
            self._process = subprocess.Popen(  # noqa: S603 - ours
                launched(
                    _PROGRAM.command(self._database, str(self._port), self._token, *self._does, options=self._options)
                ),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, "JDK_JAVA_OPTIONS": ""},  # those of a broker of the tests are not for it
            )
        deadline = time.monotonic() + START_S
        while b"ready " not in log.read_bytes():
            assert self._process.poll() is None, log.read_text()[-2000:]
            assert time.monotonic() < deadline, "HAPI did not start"
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            (self._directory / "hapi.log").unlink(missing_ok=True)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what it answers, an OperationOutcome included."""
        return self.ask(method, path, body)[1]

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        """Return its status and what it answers."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "content-type": "application/fhir+json",
                "authorization": f"Bearer {self._token}",
                "cache-control": "no-cache",  # HAPI keeps what a search has found for a minute
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=START_S) as answer:  # noqa: S310 - as above
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            return exc.code, json.load(exc)


if __name__ == "__main__":
    build()
