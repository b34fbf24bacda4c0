import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.dev.jars import JarCache
from bridge.errors import ConfigError

CONTENT = b"a jar"


def a_repository(content: bytes) -> Callable[[Path], Any]:
    """Stand where the resolver does, with one file for every coordinate."""

    def fetched(scratch: Path) -> Any:
        path = scratch / "fetched"
        path.write_bytes(content)
        version = SimpleNamespace(artifact=lambda: SimpleNamespace(resolve=lambda: path))
        return SimpleNamespace(project=lambda *_: SimpleNamespace(at_version=lambda _: version))

    return fetched


def a_cache(directory: Path, content: bytes = CONTENT) -> JarCache:
    """Make one for a lock of one jar, before a repository that has `content` for it."""
    lock = directory / "lock.toml"
    digest = hashlib.sha256(CONTENT).hexdigest()
    lock.write_text(
        f'[[dependencies]]\ngroupId = "org.example"\nartifactId = "thing"\nversion = "1.0"\nsha256 = "{digest}"\n'
    )
    return JarCache(directory / "cache", lock=lock, repository=a_repository(content))


def test_what_is_missing_or_cut_short_is_fetched_under_its_own_name(tmp_path: Path) -> None:
    cache = a_cache(tmp_path)
    for kept in (b"", CONTENT[:-1]):
        path = tmp_path / "cache" / "org.example.thing-1.0.jar"
        if kept:
            path.write_bytes(kept)

        cache.fetch()

        assert (cache.class_path, path.read_bytes()) == (str(path), CONTENT)


def test_a_file_that_is_not_the_locked_one_is_refused_and_not_kept(tmp_path: Path) -> None:
    cache = a_cache(tmp_path, b"something else")

    with pytest.raises(ConfigError, match=r"^org\.example\.thing-1\.0\.jar does not match its SHA-256 in the lock"):
        cache.fetch()

    assert list((tmp_path / "cache").iterdir()) == []
