"""Cache of the Apache Kafka jars, exactly as the lock lists them, shared by all data directories.

`python -m tests.relock kafka` rewrites the lock.
"""

import hashlib
import os
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any, NamedTuple

from bridge.errors import ConfigError

VARIABLE = "BRIDGE_DEV_CACHE"
LOCK = Path(__file__).with_name("kafka.lock.toml")
# Concurrent downloads, as many as a browser opens to one host: latency matters for these small files.
_DOWNLOADS_AT_ONCE = 6
# Seconds, for a jar of 12 MB on a slow line; the resolver's default is 10 s for each read.
_READ_TIMEOUT_S = 60


class Jar(NamedTuple):
    """One entry of the lock."""

    group: str
    artifact: str
    version: str
    sha256: str

    @property
    def file_name(self) -> str:
        """File name in the cache; it includes the group, since artifact names are not unique."""
        return f"{self.group}.{self.artifact}-{self.version}.jar"


def cache_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """Return `BRIDGE_DEV_CACHE`, or the directory by the XDG base directory specification."""
    given = environ.get(VARIABLE)
    if given:
        return Path(given).absolute()
    base = environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "drx-bridge"


def maven_repository(scratch: Path) -> Any:
    """Open the repositories configured for jgo, by default the public one, to download into `scratch`."""
    try:
        from jgo.config import GlobalSettings  # noqa: PLC0415 - 0.5 s of imports, needed once per machine
        from jgo.constants import MAVEN_CENTRAL_URL  # noqa: PLC0415 - as above
        from jgo.maven import MavenContext  # noqa: PLC0415 - as above
    except ImportError as exc:
        msg = "the Kafka jars are not in the cache and jgo is not installed: install the package with its extra `dev`"
        raise ConfigError(msg) from exc
    # Repositories in jgo's configuration file are asked first.
    repositories = dict(GlobalSettings.load().repositories)
    repositories.setdefault("central", MAVEN_CENTRAL_URL)
    return MavenContext(repo_cache=scratch, remote_repos=repositories, timeout=_READ_TIMEOUT_S)


class JarCache:
    """Flat directory of jars; a file whose checksum differs from the lock counts as missing."""

    def __init__(
        self, directory: Path | None = None, *, lock: Path = LOCK, repository: Callable[[Path], Any] = maven_repository
    ) -> None:
        """`lock` lists the jars in class path order; `directory` defaults to the cache of this user."""
        self._directory = directory or cache_dir()
        entries = tomllib.loads(lock.read_text(encoding="utf-8"))["dependencies"]
        names = ("groupId", "artifactId", "version", "sha256")
        self.jars = tuple(Jar(*(entry[name] for name in names)) for entry in entries)
        self._repository = repository

    @property
    def class_path(self) -> str:
        """Value for `java -cp`."""
        return os.pathsep.join(str(self._path(jar)) for jar in self.jars)

    def missing(self) -> list[Jar]:
        """Jars that are absent, cut short or changed: 45 MB are hashed, about 0.1 s."""
        return [jar for jar in self.jars if not _is_intact(self._path(jar), sha256=jar.sha256)]

    def fetch(self, *, say: Callable[[str], object] = str) -> None:
        """Download missing jars, compare each with the lock, and only then rename it into place."""
        missing = self.missing()
        if not missing:
            return
        say(f"fetching {len(missing)} jars, once for this machine")
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            # Inside the cache, since a rename is atomic only within one file system.
            with tempfile.TemporaryDirectory(prefix="fetch-", dir=self._directory) as scratch:
                self._fetch(missing, context=self._repository(Path(scratch)))
        except OSError as exc:
            msg = f"cannot write the cache {self._directory} ({exc.strerror}): set {VARIABLE} to another directory"
            raise ConfigError(msg) from exc

    def _fetch(self, jars: Iterable[Jar], *, context: Any) -> None:
        pool = ThreadPoolExecutor(_DOWNLOADS_AT_ONCE)
        try:
            pending = {pool.submit(_download, jar, context): jar for jar in jars}
            for download in as_completed(pending):
                download.result().replace(self._path(pending[download]))
        finally:
            pool.shutdown(cancel_futures=True)

    def _path(self, jar: Jar) -> Path:
        return self._directory / jar.file_name


def _is_intact(path: Path, *, sha256: str) -> bool:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False


def _download(jar: Jar, context: Any) -> Path:
    """Fetch one jar by its coordinate; the lock already lists its dependencies."""
    import requests  # noqa: PLC0415 - comes with jgo; see `maven_repository`

    artifact = context.project(jar.group, jar.artifact).at_version(jar.version).artifact()
    try:
        path = Path(artifact.resolve())
    except (requests.RequestException, RuntimeError) as exc:
        msg = f"cannot fetch {jar.file_name}: is the Maven repository reachable from here? ({type(exc).__name__})"
        raise ConfigError(msg) from exc
    if not _is_intact(path, sha256=jar.sha256):
        raise ConfigError(f"{jar.file_name} does not match its SHA-256 in the lock; it was not kept")
    return path
