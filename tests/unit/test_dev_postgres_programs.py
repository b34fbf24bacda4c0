from __future__ import annotations

from pathlib import Path

import pytest

from bridge.dev.postgres import Programs, environment, find_programs
from bridge.errors import ConfigError


def a_directory(path: Path, *, answer: str, exit_code: int = 0) -> dict[str, str]:
    """Environment that names a directory with a `postgres` that answers so."""
    program = path / "postgres"
    program.write_text(f"#!/bin/sh\necho '{answer}'\nexit {exit_code}\n")
    program.chmod(0o755)
    return {"BRIDGE_DEV_POSTGRES": str(path)}


@pytest.mark.parametrize(
    ("answer", "major"),
    [
        ("postgres (PostgreSQL) 16.14", 16),
        ("postgres (PostgreSQL) 17.2 (Debian 17.2-1.pgdg120+1)", 17),
        ("postgres (PostgreSQL) 19devel", 19),
    ],
)
def test_the_directory_that_an_operator_names_is_asked_for_its_version(tmp_path: Path, answer: str, major: int) -> None:
    assert find_programs(a_directory(tmp_path, answer=answer)) == Programs(tmp_path, major)


@pytest.mark.parametrize(
    ("answer", "exit_code", "told"),
    [
        ("postgres (PostgreSQL) 15.9", 0, "holds PostgreSQL 15; 16 or newer is needed"),
        ("no database here", 0, "holds no PostgreSQL that runs here"),
        ("postgres (PostgreSQL) 18.4", 1, "holds no PostgreSQL that runs here"),
    ],
)
def test_one_that_is_too_old_or_none_is_refused(tmp_path: Path, answer: str, exit_code: int, told: str) -> None:
    environ = a_directory(tmp_path, answer=answer, exit_code=exit_code)

    with pytest.raises(ConfigError, match=told) as refused:
        find_programs(environ)

    assert f"BRIDGE_DEV_POSTGRES: {tmp_path}" in str(refused.value)


def test_an_empty_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no PostgreSQL that runs here"):
        find_programs({"BRIDGE_DEV_POSTGRES": str(tmp_path)})


def test_without_a_word_of_the_operator_the_packaged_one_is_taken() -> None:
    assert find_programs({}).major == 18


@pytest.mark.parametrize(("major", "builtin"), [(16, False), (17, True), (18, True)])
def test_text_sorts_by_code_point_whatever_locales_the_machine_has(
    tmp_path: Path, major: int, *, builtin: bool
) -> None:
    options = Programs(tmp_path, major).locale_options

    assert options[0] == "--locale=C"
    assert ("--builtin-locale=C.UTF-8" in options) is builtin


def test_the_programs_hear_nothing_of_another_database() -> None:
    shell = {"PATH": "/bin", "PGDATA": "/var/lib/postgresql", "PGPORT": "5432", "LC_ALL": "de_DE"}

    assert environment(shell) == {"PATH": "/bin", "LC_ALL": "C"}
