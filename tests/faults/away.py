"""A server in this process that can be down; its data is kept."""

import socket
import threading
from abc import ABC, abstractmethod
from contextlib import suppress
from socketserver import ThreadingMixIn
from typing import Any, Self

from bridge.dev.ports import free_port

HOST = "127.0.0.1"


class AwayServer(ABC):
    """Listens on a port of its own, in a thread, while it is open."""

    def __init__(self) -> None:
        self.port = free_port()  # where it listens, or will
        self._server: Any = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        self._server = self.bound()
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        """Close: new connections are refused."""
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            # A process that is being started has a copy of the socket until it runs its program: closing ours would
            # leave the port in use.
            with suppress(OSError):  # elsewhere than on Linux
                self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.server_close()
        self._server = None

    @abstractmethod
    def bound(self) -> ThreadingMixIn:
        """Return a server that is bound to the port."""
