from __future__ import annotations

import json
import socket
from pathlib import Path

from bridge.dev.ports import free_port, is_free, stable_ports


def test_ports_differ_and_stay(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"

    first = stable_ports(file, names=("a", "b", "c"))

    assert len(set(first.values())) == 3
    assert stable_ports(file, names=("a", "b", "c")) == first


def test_a_port_that_someone_took_is_replaced_for_good(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    first = stable_ports(file, names=("a", "b"))

    with socket.create_server(("127.0.0.1", first["a"])):
        second = stable_ports(file, names=("a", "b"))

    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert stable_ports(file, names=("a", "b")) == second


def test_a_file_that_makes_no_sense_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "ports.json"
    for content in ("", "[]", '{"a": "80"}', '{"a": 0'):
        file.write_text(content)

        ports = stable_ports(file, names=("a",))

        assert json.loads(file.read_text()) == ports


def test_no_client_is_given_a_servers_port_as_its_own(tmp_path: Path) -> None:
    """Ports that the system hands out by itself begin at 32768 (Linux) or 49152 (macOS)."""
    ports = stable_ports(tmp_path / "ports.json", names=[str(n) for n in range(50)])

    assert max(ports.values()) < 32_768
    assert min(ports.values()) >= 1024


def test_a_taken_port_is_not_free() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert not is_free(port)

    assert is_free(port)
