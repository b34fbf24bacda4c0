"""Whoever follows a comment to a document finds it, and the section too."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DIRECTORIES = ("bridge", "consumers", "docs", "schemas", "tests")
CITED = re.compile(r"\b(docs/[\w/.-]+\.md)(?: §(\d))?")
# A document that stands elsewhere, as its readers here would know it by.
ELSEWHERE = re.compile(r"\b(?:CONTRACT|OPERATIONS|ARCHITECTURE|PITFALLS)(?: §|, ruling|\.md|: \d)")


def _sources() -> list[Path]:
    found = [path for each in DIRECTORIES for path in (ROOT / each).rglob("*") if path.suffix in {".py", ".sql"}]
    return [path for path in found if path != Path(__file__)]


def test_what_is_cited_is_there() -> None:
    cited = {citation for path in _sources() for citation in CITED.findall(path.read_text())}

    assert ("docs/contract.md", "6") in cited
    assert [page for page, _ in cited if not (ROOT / page).exists()] == []
    missing = [each for each in cited if each[1] and f"\n## {each[1]}. " not in (ROOT / each[0]).read_text()]
    assert missing == []


def test_nothing_is_cited_that_stands_elsewhere() -> None:
    assert [path.name for path in _sources() if ELSEWHERE.search(path.read_text())] == []
