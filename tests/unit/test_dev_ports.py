import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.dev.ports import free_port, is_free, stable_ports


def test_ports_differ_and_stay_unless_someone_took_one(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = stable_ports(file, names=("a", "b", "c"))
    assert len(set(first.values())) == 3
    assert stable_ports(file, names=("a", "b", "c")) == first

    with socket.create_server(("127.0.0.1", first["a"])):
        assert not is_free(first["a"])
        second = stable_ports(file, names=("a", "b"))

    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert stable_ports(file, names=("a", "b")) == second


def drawn_by_another_process(port: int) -> str:
    """Have a process of its own draw `port` or nothing, print it, and end."""
    script = "import random; from bridge.dev.ports import *; random.randint = lambda *_: {}; print(free_port())"
    done = subprocess.run([sys.executable, "-c", script.format(port)], capture_output=True, text=True, check=False)  # noqa: S603 - our own
    return done.stdout.strip() or done.stderr.splitlines()[-1]


def test_a_port_of_a_process_is_drawn_by_no_other_while_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no free port" in drawn_by_another_process(free_port())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        other: int = free.getsockname()[1]
    assert drawn_by_another_process(other) == str(other)
    monkeypatch.setattr("random.randint", lambda *_: other)
    assert free_port() == other
