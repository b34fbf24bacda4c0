"""Run PostgreSQL on this machine, in a separate directory."""

import contextlib
import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import psutil

from bridge.dev.files import write_text
from bridge.dev.ports import HOST
from bridge.dev.processes import Child, run_to_end
from bridge.errors import ConfigError

# PostgreSQL refuses to run as root. initdb needs a user with a name, and this one is on every machine.
_USER = "nobody"
# Fast shutdown: ends all sessions and flushes memory to disk.
_GRACE_S = 20.0
# Seconds; it takes 0.5 s on an idle machine.
_INITDB_TIMEOUT_S = 60.0
# Seconds; SIGKILL takes effect at once unless the process waits for a disk.
_KILL_WAIT_S = 10.0
_PASSWORD_BYTES = 24
# Source: utils/pidfile.h, LOCK_FILE_LINE_PM_STATUS and PM_STATUS_READY.
_STATUS_LINE, _READY = 8, "ready"
_SETTINGS = {
    "listen_addresses": HOST,
    # The path of a socket has at most 107 bytes; that of a data directory may be longer.
    "unix_socket_directories": "",
    "timezone": "UTC",
    "log_timezone": "UTC",
    # Statements, parameters and ERROR texts ("invalid input syntax …") contain values. Level `log`: the server's own
    # messages, FATAL and PANIC.
    "log_min_messages": "log",
    "log_min_error_statement": "panic",
    "log_error_verbosity": "terse",
    "log_statement": "none",
    "log_min_duration_statement": "-1",
    "log_parameter_max_length": "0",
    "log_parameter_max_length_on_error": "0",
}


class PostgresServer(Child):
    """A PostgreSQL server; stop and start keep its port, password and data."""

    def __init__(
        self, directory: Path, *, programs: Path, port: int, log: Path, settings: Mapping[str, str] | None = None
    ) -> None:
        """`programs` must keep their major version; `settings` are added to the usual ones."""
        directory.mkdir(parents=True, exist_ok=True)
        self._port = port
        self._password = _password(directory / "password")
        self._files = directory / "pgdata"
        self._programs = programs
        super().__init__("postgres", command=(), cwd=directory, log=log, env=environment(os.environ), grace_s=_GRACE_S)
        options = _SETTINGS | {"port": str(port)} | dict(settings or {})
        self._command = [str(programs / "postgres"), "-D", str(self._files)]
        self._command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]

    @property
    def dsn(self) -> str:
        """Connection URL of the first database as superuser, with the password."""
        return f"postgresql://postgres:{self._password}@{HOST}:{self._port}/postgres"

    @property
    def ready(self) -> bool:
        """Return whether it accepts connections, according to its lock file."""
        try:
            lines = (self._files / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:
            return False
        return len(lines) >= _STATUS_LINE and lines[0] == str(self.pid) and lines[_STATUS_LINE - 1].strip() == _READY

    def start(self) -> None:
        """Start the server unless it runs; the first start creates its files."""
        if self.alive:
            return
        if not self._files.exists():
            self._make_files()
        self._end_leftovers()
        self._user = user_of(self._files)
        super().start()

    def terminate(self) -> None:
        """Request a fast shutdown; after SIGTERM it would wait for clients to disconnect."""
        self._signal(signal.SIGINT)

    def _end_leftovers(self) -> None:
        """Clean up after a killed server: end its remaining backends and remove its lock file.

        The lock file names a process id, which may have been reused; then the new server would not start.
        """
        left = list(_servers_on(self._files))
        for process in left:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, timeout=_KILL_WAIT_S)
        (self._files / "postmaster.pid").unlink(missing_ok=True)

    def _make_files(self) -> None:
        """Run initdb in a temporary directory, so that an interrupted run starts over."""
        scratch = self._files.with_name("new")
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir(mode=0o700)
        made, password_file = scratch / "pgdata", scratch / "password"
        write_text(password_file, f"{self._password}\n")
        command = [
            str(self._programs / "initdb"),
            f"--pgdata={made}",
            f"--pwfile={password_file}",
            "--username=postgres",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",  # text sorts by code point on every machine
            "--no-instructions",
            "--no-sync",
        ]
        code, text = run_to_end(
            command,
            timeout_s=_INITDB_TIMEOUT_S,
            user=user_of(made),
            cwd=self._files.parent,
            env=environment(os.environ),
            start_new_session=True,  # Ctrl-C must not reach it; we stop it in order
        )
        if code:
            last_line = text.rpartition("\n")[2] or "no output"
            raise ConfigError(f"no database could be made in {self._files.parent}: {last_line}")
        made.rename(self._files)
        shutil.rmtree(scratch)


def _servers_on(files: Path) -> Iterator[psutil.Process]:
    """Return the PostgreSQL processes with this working directory."""
    place = str(files.resolve())
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.name() == "postgres" and process.cwd() == place:
                yield process


def _password(path: Path) -> str:
    """Return the password of the superuser, created once."""
    if not path.exists():
        write_text(path, secrets.token_urlsafe(_PASSWORD_BYTES) + "\n")
    return path.read_text(encoding="ascii").strip()


def user_of(files: Path) -> str:
    """Return the user (as for `launched`) that runs PostgreSQL's programs: the owner of its files.

    For root, new files belong to `nobody`, since PostgreSQL refuses to run as root.
    """
    if os.geteuid() != 0:
        return ""
    if files.exists():
        owner = files.stat()
        return f"{owner.st_uid}:{owner.st_gid}"
    user = pwd.getpwnam(_USER)
    return f"{user.pw_uid}:{user.pw_gid}"


def environment(ours: Mapping[str, str]) -> dict[str, str]:
    """Return our environment without PostgreSQL's variables, in the locale C."""
    return {**{name: value for name, value in ours.items() if not name.startswith("PG")}, "LC_ALL": "C"}
