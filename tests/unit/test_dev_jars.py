from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Self

import pytest

from bridge.dev.jars import LOCK, JarCache, cache_dir
from bridge.errors import ConfigError

CONTENT = b"a jar"


class Repository:
    """Stands where the resolver does: has one file for every coordinate."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    def __call__(self, scratch: Path) -> Self:
        """Open it."""
        self._path = scratch / "fetched"
        self._path.write_bytes(self._content)
        return self

    def project(self, *_: str) -> Self:
        """Nothing to look up."""
        return self

    def at_version(self, _version: str) -> Self:
        """Nothing to look up."""
        return self

    def artifact(self) -> Self:
        """Nothing to look up."""
        return self

    def resolve(self) -> Path:
        """Give the file."""
        return self._path


def a_cache(directory: Path, content: bytes = CONTENT) -> JarCache:
    """Make one for a lock of one jar, before a repository that has `content` for it."""
    lock = directory / "lock.toml"
    digest = hashlib.sha256(CONTENT).hexdigest()
    lock.write_text(
        f'[[dependencies]]\ngroupId = "org.example"\nartifactId = "thing"\nversion = "1.0"\nsha256 = "{digest}"\n'
    )
    return JarCache(directory / "cache", lock=lock, repository=Repository(content))


def test_the_lock_is_one_kafka_whole_and_without_addresses(tmp_path: Path) -> None:
    locked = JarCache(tmp_path).jars

    assert {jar.version for jar in locked if jar.group.startswith("org.apache.kafka")} == {"4.3.1"}
    assert {"kafka_2.13", "kafka-clients", "log4j-slf4j-impl", "log4j-core"} <= {jar.artifact for jar in locked}
    assert "//" not in LOCK.read_text()


def test_the_cache_is_where_the_operator_or_the_desktop_standard_says() -> None:
    assert cache_dir({"BRIDGE_DEV_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_dir({"XDG_CACHE_HOME": "/b"}) == Path("/b/drx-bridge")
    assert cache_dir({}) == Path.home() / ".cache" / "drx-bridge"


def test_what_is_missing_or_cut_short_is_fetched_under_its_own_name(tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    for kept in (b"", CONTENT[:-1]):
        path = tmp_path / "cache" / "org.example.thing-1.0.jar"
        if kept:
            path.write_bytes(kept)

        cache.fetch()

        assert cache.class_path == str(path)
        assert path.read_bytes() == CONTENT


def test_a_file_that_is_not_the_locked_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    cache = a_cache(tmp_path, b"something else")

    with pytest.raises(ConfigError, match=r"^org\.example\.thing-1\.0\.jar is not the file of the lock"):
        cache.fetch()

    assert list((tmp_path / "cache").iterdir()) == []
