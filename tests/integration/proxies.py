"""HAProxy and nginx in front of an ingress, each with one server and reused connections."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bridge.dev.ports import HOST, free_port
from tests.integration.service_process import until
from tests.ports import listens

_HAPROXY = """\
global
    log stdout format raw local0 emerg
defaults
    mode http
    http-reuse always
    timeout connect 5s
    timeout client 5s
    timeout http-keep-alive 5s
    timeout server 30s
frontend public
    bind {host}:{port}
    default_backend bridge
backend bridge
    server s {host}:{server}
"""
# A client that has finished sending still gets its response, as from HAProxy.
_NGINX = """\
    client_header_timeout 5s;
    client_body_timeout 5s;
    upstream bridge {{ server {host}:{server}; keepalive 8; }}
    server {{
        listen {host}:{port};
        location / {{
            proxy_pass http://bridge;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_ignore_client_abort on;
        }}
    }}
"""
POOLING = {"haproxy": _HAPROXY, "nginx": _NGINX}
# The configuration around the `http` block of nginx.
_AROUND_NGINX = """\
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log {directory}/nginx.log;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{text}
}}
"""
_COMMANDS = {
    "haproxy": ("{text}", ("-db", "-f", "{config}")),
    "nginx": (_AROUND_NGINX, ("-e", "{directory}/start.log", "-p", "{directory}", "-c", "{config}")),
}


def find(name: str) -> str | None:
    """Return the program, if it is installed; Debian has it where only root looks."""
    return shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")


@contextmanager
def proxying(name: str, server: int, directory: Path) -> Iterator[int]:
    port = free_port()
    with serving(name, POOLING[name].format(host=HOST, port=port, server=server), port, directory):
        yield port


@contextmanager
def serving(name: str, text: str, port: int, directory: Path) -> Iterator[None]:
    program = find(name)
    if program is None:
        pytest.skip(f"{name} is not installed: `make fault-tools` as root on a Debian, or install it by hand")
    around, arguments = _COMMANDS[name]
    config = directory / f"{name}.conf"
    config.write_text(around.format(text=text, directory=directory))
    command = [program, *(each.format(config=config, directory=directory) for each in arguments)]
    with (directory / f"{name}.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)  # noqa: S603 - a fixed program
        try:
            until(lambda: listens(port), what=name)
            yield
        finally:
            process.terminate()
            process.wait()
