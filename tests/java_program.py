"""Test programs in Java: start one, and compile a source file with the jars of a lock."""

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bridge.dev.jars import JarCache, cache_dir
from bridge.dev.processes import launched
from bridge.dev.programs import find_java
from tests.kafka import HANG_S

# A jar of the lock, since the packaged Java has no compiler.
_COMPILER = "org.eclipse.jdt.ecj"
_POLL_S = 0.05


def start(
    command: Sequence[str], log: Path, *, is_ready: Callable[[], bool], within_s: float = HANG_S
) -> subprocess.Popen[bytes]:
    """Start a server that ends with this process, with its output in `log`; return when it is ready."""
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603 - ours
            launched(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={**os.environ, "JDK_JAVA_OPTIONS": ""},  # those of a broker of the tests are not for it
        )
    deadline = time.monotonic() + within_s
    while not is_ready():
        assert process.poll() is None, log.read_text()[-2000:]
        assert time.monotonic() < deadline, f"it did not start: {log}"
        time.sleep(_POLL_S)
    return process


@dataclass(frozen=True, slots=True)
class JavaProgram:
    """A program from one Java file `source`, named after its main class, with the jars of a lock."""

    name: str
    lock: Path
    source: Path

    def is_built(self) -> bool:
        return (self._classes() / f"{self.source.stem}.class").exists() and all(
            Path(each).exists() for each in self._class_path()
        )

    def build(self) -> None:
        if self.is_built():
            return
        java, cache = find_java(), self._jars()
        cache.fetch()
        compiler = next(each for each in self._class_path() if _COMPILER in each)
        classes = self._classes()
        classes.mkdir(parents=True, exist_ok=True)
        subprocess.run(  # noqa: S603 - ours
            [
                str(java), "-jar", compiler, "-17", "-nowarn", "-classpath", cache.class_path,
                "-d", str(classes), str(self.source),
            ],
            check=True,
        )  # fmt: skip

    def command(self, *arguments: str, options: tuple[str, ...] = ()) -> list[str]:
        class_path = f"{self._classes()}{os.pathsep}{self._jars().class_path}"
        return [str(find_java()), *options, "-cp", class_path, self.source.stem, *arguments]

    def _jars(self) -> JarCache:
        return JarCache(cache_dir() / self.name, lock=self.lock)

    def _class_path(self) -> list[str]:
        return self._jars().class_path.split(os.pathsep)

    def _classes(self) -> Path:
        made_of = self.source.read_bytes() + self.lock.read_bytes()
        return cache_dir() / self.name / hashlib.sha256(made_of).hexdigest()[:12]
