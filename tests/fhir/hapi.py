"""A real HAPI FHIR R4 server with its validator, in memory or on a file: the peer of the consumer `fhir`.

`python -m tests.fhir.hapi` (`make fhir-server`) fetches its jars, 290 MB, each with the hash of the lock, and compiles
`HapiServer.java`; without it, tests run only against `tests.fhir.fake`.
"""

import json
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

from bridge.dev.ports import free_port
from tests.java_cache import SHORT_LIVED
from tests.java_program import JavaProgram, start
from tests.kafka import HANG_S

LOCK = Path(__file__).with_name("hapi.lock.toml")
_PROGRAM = JavaProgram("hapi", LOCK, Path(__file__).with_name("HapiServer.java"))
is_built, build = _PROGRAM.is_built, _PROGRAM.build
# Of a server that keeps some thousand resources in memory; it takes 1.4 GB by itself without a bound.
_OPTIONS = ("-Xmx1g",)
# It loads 250 jars and makes 100 tables, in 15 s of CPU; compiled for a long run, in 34 s.
SHORT_RUN, LONG_RUN = ("-XX:+UseSerialGC", SHORT_LIVED), ("-XX:+UseParallelGC",)
START_S = 5 * HANG_S


class HapiServer:
    """A server that ends with the process that started it; `start` and `stop` block."""

    def __init__(
        self, directory: Path, *, token: str = "", validates: bool = False, options: tuple[str, ...] = SHORT_RUN
    ) -> None:
        """Log to `directory`; with `token` requests need it. With `validates` it refuses invalid R4."""
        port, self._token, self._log = free_port(), token, directory / "hapi.log"
        # Base URLs for ids that clients choose, and for ids that the server chooses.
        self.url, self.ids_url = (f"http://127.0.0.1:{port}/{path}" for path in ("fhir", "ids"))
        does = ("validate",) if validates else ()
        self._command = _PROGRAM.command("jdbc:h2:mem:hapi", str(port), token, *does, options=(*_OPTIONS, *options))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = start(
            self._command, self._log, is_ready=lambda: b"ready " in self._log.read_bytes(), within_s=START_S
        )

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
            self._log.unlink(missing_ok=True)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/{path}", method=method, data=content, headers=request_headers(self._token)
        )
        with urllib.request.urlopen(request, timeout=START_S) as answer:  # noqa: S310 - as above
            found: dict[str, Any] = json.load(answer)
            return found


def request_headers(token: str) -> dict[str, str]:
    return {
        "accept": "application/fhir+json",
        "content-type": "application/fhir+json",
        "authorization": f"Bearer {token}",
        "cache-control": "no-cache",  # HAPI keeps what a search has found for a minute
    }


if __name__ == "__main__":
    build()
