"""A wall clock that can be stepped under a running process, by libfaketime; monotonic clocks do not change."""

from importlib.util import find_spec
from pathlib import Path

from bridge.dev.files import write_text

# A change is seen within this; the library looks when more than a second, in whole ones, has gone by.
SEEN_S = 2.5


class Clock:
    """The clock of one process; `environment` has the environment variables of the process."""

    def __init__(self, path: Path) -> None:
        """Store its offset in a file at `path`; it starts with the right time."""
        self._path = path
        self.step(0)
        self.environment = {
            "LD_PRELOAD": str(_library()),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            # Read anew at every look, it now and then gives a thread a time that another is just about to change.
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Its remedy for an old glibc ends every timed wait at once: threads that wait for the interpreter's lock
            # then spin, and a process with four threads does a quarter of its work.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_FMT": "%s",
        }

    def step(self, seconds: float) -> None:
        """Let it run `seconds` ahead of the real clock (behind, if negative) from now on."""
        write_text(self._path, f"{seconds:+.6f}\n")

    def hold(self, at: int) -> None:
        """Stop it at a unix time, until it is stepped."""
        write_text(self._path, f"{at}\n")


def _library() -> Path:
    """The library file; the Python package works only in its own process."""
    spec = find_spec("libfaketime")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "vendor" / "libfaketime" / "src" / "libfaketime.so.1"
