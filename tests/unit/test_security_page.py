"""The tests and pages that pages and comments name exist."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text()
PROMISES = (ROOT / "docs" / "guarantees.md").read_text()
CITED = re.compile(r"\bdocs/[\w/.-]+\.md")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


@cache
def functions_of(path: str) -> frozenset[str]:
    found = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(each.name for each in found if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef))


def rows(page: str = PAGE) -> list[str]:
    """The rows of every table whose last column is of tests."""
    found: list[str] = []
    for table in re.findall(r"(?:^\|.*\n)+", page, re.MULTILINE):
        head, _, *body = table.splitlines()
        if head.endswith("| tests |"):
            found += body
    return found


@pytest.mark.parametrize("row", [*rows(), *rows(PROMISES)], ids=lambda row: row.split("|")[1].strip())
def test_each_row_names_tests_that_are_there(row: str) -> None:
    named = NAMED.findall(row.split("|")[-2])

    assert named
    assert [f"{path}::{name}" for path, name in named if name not in functions_of(path)] == []


def test_the_tables_are_found() -> None:
    safeguards = {row.split("|")[1].split()[0] for row in rows() if row.startswith("| (")}

    assert len(rows()) > 20
    assert len(rows(PROMISES)) == 8
    assert {"(a)(1)", "(a)(2)(i)", "(a)(2)(iv)", "(b)", "(c)(1)", "(d)", "(e)(1)"} <= safeguards


def test_a_page_that_a_comment_names_is_there() -> None:
    folders = ("bridge", "consumers", "docs", "schemas", "tests")
    sources = [path for each in folders for path in (ROOT / each).rglob("*") if path.suffix in {".py", ".sql"}]
    cited = {page for path in sources for page in CITED.findall(path.read_text())}

    assert "docs/contract.md" in cited
    assert [page for page in cited if not (ROOT / page).exists()] == []
