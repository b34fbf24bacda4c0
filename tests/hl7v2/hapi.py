"""HAPI's HL7 v2 server, which accepts messages that its parser and validator accept: a peer of `hl7v2`.

`python -m tests.hl7v2.hapi` (`make hl7-server`) fetches its jars, 7 MB, each with the hash of the lock, and compiles
`Hl7Server.java`; without it, the tests that need it are skipped.
"""

import base64
import subprocess
from pathlib import Path
from typing import NamedTuple, Self

import pytest

from bridge.dev.ports import free_port
from tests.java_cache import SHORT_LIVED
from tests.java_program import JavaProgram, start

LOCK = Path(__file__).with_name("hapi.lock.toml")
_PROGRAM = JavaProgram("hapi-hl7v2", LOCK, Path(__file__).with_name("Hl7Server.java"))
_TOOK = "took "


class Taken(NamedTuple):
    """A message as received, and as encoded again after parsing."""

    sent: str
    understood: str


class Hl7Server:
    """A server that ends with the process that started it; it may be exited and entered again, on the same port."""

    def __init__(self, directory: Path) -> None:
        """Write a log to `directory`, and accept messages of the codes `takes`."""
        self._log = directory / "hapi-hl7v2.log"
        self.takes: tuple[str, ...] = ("OMP", "RDS", "ORM")  # codes of accepted messages (MSH-9.1)
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    def __enter__(self) -> Self:
        """Return when it listens; skip the test where there is no server."""
        if not _PROGRAM.is_built():
            pytest.skip("no HL7 v2 server of HAPI: `make hl7-server` fetches it, 7 MB")
        before = self._lines().count("ready")
        command = _PROGRAM.command(str(self.port), ",".join(self.takes), options=(SHORT_LIVED,))
        self._process = start(command, self._log, is_ready=lambda: self._lines().count("ready") > before)
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def taken(self) -> list[Taken]:
        """Return the accepted messages, in order."""
        return [
            Taken(*(base64.b64decode(part).decode() for part in line.removeprefix(_TOOK).split()))
            for line in self._lines()
            if line.startswith(_TOOK)
        ]

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines() if self._log.exists() else []


if __name__ == "__main__":
    _PROGRAM.build()
