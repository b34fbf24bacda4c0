"""Start, watch and stop child processes that end with this one."""

import contextlib
import math
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from bridge.errors import ConfigError

# The kernel's parent-death signal follows the *thread* that forked. This thread ends with the process.
_SPAWNER = ThreadPoolExecutor(1, thread_name_prefix="spawn")
# Bytes; a larger log is rotated at the next start, and one older log is kept.
LOG_MAX_BYTES = 10_000_000
# Bytes read for the last line; log lines are far shorter.
_LAST_LINE_BYTES = 2000
# SIGKILL takes effect at once unless the process waits for a disk.
_KILL_WAIT_S = 10.0
# Seconds to end; more than a broker or a stateless server needs.
STOP_GRACE_S = 10.0
# Seconds to become ready: the last resort against a hang, also next to a busy test suite.
READY_TIMEOUT_S = 90.0
_READY_POLL_S = 0.05
# The other user has no groups, and one capability of root: to bypass file permissions, since programs and files may be
# below directories that only root may enter. Without `no_setuid_fixup`, access(2) ignores it.
_AS_USER = "--clear-groups --securebits=+no_setuid_fixup --inh-caps=-all,+dac_override --ambient-caps=+dac_override"


def launched(command: Sequence[str], *, user: str = "") -> list[str]:
    """Return the command line that runs `command`, as another user if one (`UID:GID`) is given.

    The kernel kills it when the thread that started it ends, except where setpriv is missing, as on macOS.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return list(command)
    uid, _, gid = user.partition(":")
    as_user = [f"--reuid={uid}", f"--regid={gid}", *_AS_USER.split()] if user else []
    return [setpriv, "--pdeathsig=KILL", *as_user, "--", *command]


def spawn(command: Sequence[str], *, user: str = "", **options: Any) -> subprocess.Popen[Any]:
    """Start `command` by `launched`; `options` are for `subprocess.Popen`."""
    return _SPAWNER.submit(partial(subprocess.Popen, launched(command, user=user), **options)).result()


def run_to_end(command: Sequence[str], *, timeout_s: float, user: str = "", **options: Any) -> tuple[int, str]:
    """Run `command` by `launched`; return its exit code, and its output on both streams without the last line break."""
    done = subprocess.run(  # noqa: S603 - our own command line
        launched(command, user=user),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=timeout_s,
        check=False,
        **options,
    )
    return done.returncode, done.stdout.decode("utf-8", "replace").rstrip()


class Child:
    """A child process with its own log file and process group; can be restarted."""

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str],
        cwd: Path,
        log: Path,
        env: Mapping[str, str] | None = None,
        grace_s: float = STOP_GRACE_S,
    ) -> None:
        """Nothing is started yet. Without `env` it inherits ours; `grace_s` is its time to end in order."""
        self.name = name
        self.log = log
        self.grace_s = grace_s
        self._command = list(command)
        self._cwd = cwd
        self.env = dict(os.environ if env is None else env)
        self._user = ""
        self._process: subprocess.Popen[bytes] | None = None
        self.started_at = -math.inf
        """Monotonic seconds."""

    @property
    def pid(self) -> int | None:
        """Process id; None if it does not run."""
        return self._process.pid if self._process is not None and self.alive else None

    @property
    def alive(self) -> bool:
        """Whether the process runs, even paused."""
        return self._process is not None and self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit code, minus the signal if one ended it; None while it runs or before the first start."""
        return None if self._process is None else self._process.poll()

    @property
    def last_line(self) -> str:
        """Return the last line of its log, to report why it ended."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(0, self.log.stat().st_size - _LAST_LINE_BYTES))
                lines = file.read().decode("utf-8", "replace").split("\n")
        except OSError:
            return ""
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def start(self) -> None:
        """Start the process unless it runs."""
        if self.alive:
            return
        if self.log.exists() and self.log.stat().st_size > LOG_MAX_BYTES:
            self.log.replace(self.log.with_name(f"{self.log.name}.1"))
        self.started_at = time.monotonic()
        with self.log.open("ab") as log:
            self._process = spawn(
                self._command,
                user=self._user,
                cwd=self._cwd,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # the terminal's Ctrl-C is for us; we stop them in order
            )

    @property
    def ready(self) -> bool:
        """Return whether it is ready: here, whether it runs; subclasses query its address."""
        return self.alive

    def wait_ready(self) -> None:
        """Wait until it is ready; see `wait_until`."""
        self.wait_until(lambda: self.ready)

    def wait_until(self, ready: Callable[[], bool]) -> None:
        """Wait until `ready` returns true."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready():
            if not self.alive:
                raise ConfigError(f"{self.name} ended with {self.exit_code}: {self.last_line}; see {self.log}")
            if time.monotonic() > deadline:
                raise ConfigError(f"{self.name} was not ready within {READY_TIMEOUT_S:.0f} s; see {self.log}")
            time.sleep(_READY_POLL_S)

    def terminate(self) -> None:
        """Ask the process to end."""
        self._signal(signal.SIGTERM)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end; return whether it ended in time."""
        if self._process is None:
            return True
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self) -> None:
        """Ask the process to end; kill it after `grace_s`."""
        self._signal(signal.SIGCONT)  # it may be paused
        self.terminate()
        if not self.wait(self.grace_s):
            self.kill()

    def kill(self) -> None:
        """Kill the whole process group."""
        self._signal(signal.SIGKILL)
        self.wait(_KILL_WAIT_S)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)
