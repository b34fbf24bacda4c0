from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bridge.dev.jars import LOCK, Jar, JarCache, cache_dir, locked_jars
from bridge.errors import ConfigError

CONTENT = b"a jar"


def a_jar(*, content: bytes = CONTENT) -> Jar:
    return Jar(group="org.example", artifact="thing", version="1.0", sha256=hashlib.sha256(content).hexdigest())


def test_the_lock_is_one_kafka_whole_and_without_addresses() -> None:
    locked = locked_jars()

    kafka = {jar.version for jar in locked if jar.group.startswith("org.apache.kafka")}
    assert kafka == {"4.3.1"}
    assert {"kafka_2.13", "kafka-clients", "log4j-slf4j-impl", "log4j-core"} <= {jar.artifact for jar in locked}
    assert len({jar.file_name for jar in locked}) == len(locked)
    assert all(len(jar.sha256) == 64 for jar in locked)
    assert "//" not in LOCK.read_text()


def test_the_cache_is_where_the_operator_or_the_desktop_standard_says() -> None:
    assert cache_dir({"BRIDGE_DEV_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/drx-bridge")
    assert cache_dir({}) == Path.home() / ".cache" / "drx-bridge"


def test_a_jar_cut_short_counts_as_missing(tmp_path: Path) -> None:
    cache = JarCache(tmp_path, jars=(a_jar(),), repository=Repository)
    path = tmp_path / a_jar().file_name
    path.write_bytes(CONTENT)
    assert cache.missing() == []

    path.write_bytes(CONTENT[:-1])

    assert cache.missing() == [a_jar()]


class Repository:
    """Stands where the resolver does: has one file for every coordinate."""

    def __init__(self, path: Path) -> None:
        """Have the file at `path`."""
        self._path = path

    def project(self, _group: str, _artifact: str) -> Repository:
        """Nothing to look up."""
        return self

    def at_version(self, _version: str) -> Repository:
        """Nothing to look up."""
        return self

    def artifact(self) -> Repository:
        """Nothing to look up."""
        return self

    def resolve(self) -> Path:
        """Give the file."""
        return self._path


def test_a_file_that_is_not_the_locked_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"something else")
    cache = JarCache(tmp_path / "cache", jars=(a_jar(),), repository=lambda _scratch: Repository(other))

    with pytest.raises(ConfigError, match=r"org\.example:thing:1\.0 is not the file of the lock"):
        cache.fetch(cache.missing(), check=lambda: None)

    assert list((tmp_path / "cache").iterdir()) == []


def test_what_was_missing_is_fetched_under_its_own_name(tmp_path: Path) -> None:
    fetched = tmp_path / "fetched"
    fetched.write_bytes(CONTENT)
    cache = JarCache(tmp_path / "cache", jars=(a_jar(),), repository=lambda _scratch: Repository(fetched))

    cache.fetch(cache.missing(), check=lambda: None)

    assert cache.missing() == []
    assert cache.class_path == str(tmp_path / "cache" / "org.example.thing-1.0.jar")
