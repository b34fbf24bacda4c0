"""Third-party programs that only tests need: from the PATH, else from Debian packages, unpacked for this user.

`python -m tests.debian NAME …` downloads missing ones; nothing is installed and no server is started.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from bridge.dev.jars import cache_dir
from tests.spooling import NAMESPACE


class Program(NamedTuple):
    """A program: its Debian package, its name in it, and the directory that it reads by an absolute path."""

    package: str
    called: str
    share: str = ""


PROGRAMS = {
    "promtool": Program("prometheus", "promtool"),
    "prometheus": Program("prometheus", "prometheus"),
    "alertmanager": Program("prometheus-alertmanager", "prometheus-alertmanager", "/usr/share/prometheus/alertmanager"),
    "amtool": Program("prometheus-alertmanager", "amtool"),
}
# Mounts a directory ($1) at another path ($0), visible only to the program that is run then.
_ELSEWHERE = """\
mount -t tmpfs none /usr/share && mkdir -p "$(dirname "$1")" && ln -s "$0" "$1" && shift && exec "$@"
"""


def find(name: str) -> str | None:
    own = _own(name)
    return shutil.which(name) or shutil.which(PROGRAMS[name].called) or (str(own) if own.exists() else None)


def command(name: str) -> list[str]:
    """Return the command line of a program that exists."""
    found, share = find(name) or name, PROGRAMS[name].share
    if found != str(_own(name)) or not share:
        return [found]
    return [*NAMESPACE, "sh", "-c", _ELSEWHERE, str(_share(name)), share, found]


def fetch(name: str) -> str | None:
    """Return the program, after unpacking Debian's package if necessary; None if that fails."""
    found = find(name)
    if found is not None or shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        return found
    package, place = PROGRAMS[name].package, cache_dir()
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place) as scratch:
        # Package lists may be missing or old; only root can and needs to update them.
        if not _download(package, scratch) and not (
            _run("apt-get", "update", cwd=scratch) and _download(package, scratch)
        ):
            return None
        (archive,) = Path(scratch).glob("*.deb")
        if not _run("dpkg-deb", "--extract", str(archive), "content", cwd=scratch):
            return None
        for each in (each for each, program in PROGRAMS.items() if program.package == package):
            _keep(each, Path(scratch) / "content")
    return str(_own(name))


def lacking(name: str) -> str:
    package = PROGRAMS[name].package
    return (
        f"{name} is missing: put it on the PATH (Debian: `apt-get install {package}`), "
        f"or run `.venv/bin/python -m tests.debian {name}` on a Debian"
    )


def _own(name: str) -> Path:
    return cache_dir() / name / name


def _share(name: str) -> Path:
    return cache_dir() / name / "share"


def _keep(name: str, content: Path) -> None:
    program, own = PROGRAMS[name], _own(name)
    own.parent.mkdir(exist_ok=True)
    if program.share:
        shutil.rmtree(_share(name), ignore_errors=True)
        (content / program.share.lstrip("/")).rename(_share(name))
    (content / "usr" / "bin" / program.called).rename(own)  # last: what is there is whole


def _download(package: str, directory: str) -> bool:
    return _run("apt-get", "download", "--quiet", package, cwd=directory)


def _run(*command: str, cwd: str) -> bool:
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False).returncode == 0  # noqa: S603 - our own


def main(names: list[str]) -> str | None:
    return "\n".join(lacking(name) for name in names if fetch(name) is None) or None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
