"""The configurations that docs/operations.md recommends are such as their programs take."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its types are a distribution of their own

from tests import snippets

HOSTS = re.compile(r"\bbridge-\d\.bridge\b")


def program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    return found


def taken(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)  # noqa: S603 - fixed programs
    return "" if done.returncode == 0 else done.stdout + done.stderr


def test_haproxy_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "haproxy.cfg"
    frontend = "frontend public\n    bind 127.0.0.1:1\n    default_backend bridge\n"
    times = "defaults\n    mode http\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n"
    config.write_text(times + frontend + HOSTS.sub("127.0.0.1", snippets.haproxy()))

    assert taken(program("haproxy"), "-c", "-f", str(config)) == ""


def test_nginx_takes_it(tmp_path: Path) -> None:
    config = tmp_path / "nginx.conf"
    written = HOSTS.sub("127.0.0.1", snippets.nginx())
    config.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{written}}}\n")

    assert taken(program("nginx"), "-t", "-e", f"{tmp_path}/error.log", "-c", str(config)) == ""


def test_envoy_hashes_the_path_and_asks_for_readiness_where_it_is_said() -> None:
    """Its program is in no distribution; the names are those of its API v3."""
    document: Any = yaml.safe_load(snippets.envoy())
    (route,), (cluster,) = document["routes"], document["clusters"]

    assert route["route"]["hash_policy"] == [{"header": {"header_name": ":path"}}]
    assert cluster["lb_policy"] == "RING_HASH"
    assert cluster["health_checks"][0]["http_health_check"] == {"path": "/readyz"}
    endpoints = [each["endpoint"] for each in cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]]
    assert {each["health_check_config"]["port_value"] for each in endpoints} == {9090}
