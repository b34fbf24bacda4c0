import json
import subprocess
import threading
from pathlib import Path
from typing import Any, Self

from tests.kafka import HANG_S
from tests.node import node_script

FILES = Path(__file__).with_name("npm")


class NodeReceiver:
    """Verifies requests; responds 204, or 401 if they are not signed with `secret`."""

    def __init__(self, secret: str, *, refused: int = 0) -> None:
        """Respond 503 to the first `refused` valid requests."""
        self.requests: list[dict[str, Any]] = []
        self._port: int | None = None
        self._listening = threading.Event()
        command = [*node_script(FILES, "forward"), secret, str(refused)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own script
        self._reader = threading.Thread(target=self._read)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/desk?tenant=7"

    @property
    def taken(self) -> list[dict[str, Any]]:
        return [each for each in list(self.requests) if each["status"] == 204]

    def __enter__(self) -> Self:
        self._reader.start()
        assert self._listening.wait(HANG_S)
        assert self._port is not None, "the receiver did not start"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        assert self._process.stdout is not None
        self._process.stdout.close()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said = json.loads(line)
            if "port" in said:
                self._port = said["port"]
                self._listening.set()
            else:
                self.requests.append(said)
        self._listening.set()
