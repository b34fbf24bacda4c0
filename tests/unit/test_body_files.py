"""Reading files of bodies exported by other systems."""

from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.runtime.body_files import TOO_LARGE, Body, bodies_of

MOST, UNFIT = 64, "csv_columns"
CANARY = "Quintero"


def read(tmp_path: Path, content: bytes, name: str = "export.ndjson") -> list[Body]:
    file = tmp_path / name
    file.write_bytes(content)
    return list(bodies_of(file, body_max_bytes=MOST))


@pytest.mark.parametrize(
    ("name", "content", "lines"),
    [
        ("e.ndjson", b"", []),
        ("e.ndjson", b'\xef\xbb\xbf{"a": 1.0}\r\n\n {"a":2}', [(1, b'{"a": 1.0}'), (3, b'{"a":2}')]),
        ("e.ndjson", b'[{"a":1}]\n[{"a":2}]\n', [(1, b'[{"a":1}]'), (2, b'[{"a":2}]')]),
        ("e.ndjson", b"{" + b" " * MOST + b"}\n{}\n", [(1, b"", TOO_LARGE), (2, b"{}")]),
        ("e.ndjson", b"{" + b" " * 10 * MOST + b"}", [(1, b"", TOO_LARGE)]),
        ("e.ndjson", b'{"cut', [(1, b'{"cut')]),
        ("e.json", b'[\n {"a": 1.10,\n "b": "]"} , [2]\n]\n', [(1, b'{"a": 1.10,\n "b": "]"}'), (2, b"[2]")]),
        ("e.json", b'\xef\xbb\xbf[{"a":1},{"a":2}]', [(1, b'{"a":1}'), (2, b'{"a":2}')]),
        ("e.json", b"[ ]", []),
        ("e.json", b'["' + b"x" * MOST + b'", 1]', [(1, b"", TOO_LARGE), (2, b"1")]),
        ("e.csv", 'rx,é\n1,"a\nb"\n2,\n'.encode(), [(3, '{"rx":"1","é":"a\\nb"}'.encode()), (4, b'{"rx":"2"}')]),
        ("e.CSV", b"\xef\xbb\xbfrx,a\n1\n1,2,3\n1,2", [(2, b"", UNFIT), (3, b"", UNFIT), (4, b'{"rx":"1","a":"2"}')]),
    ],
)  # fmt: skip
def test_each_body_is_as_it_stands_in_the_file(
    tmp_path: Path, name: str, content: bytes, lines: list[tuple[int, bytes]]
) -> None:
    assert read(tmp_path, content, name) == [Body(*line) for line in lines]


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("e.ndjson", f'{{"a":"{CANARY}"}}\n'.encode("utf-16"), "is not UTF-8"),
        ("e.csv", f"rx\n{CANARY}é".encode("latin-1"), "is not UTF-8"),
        ("e.json", f'[{{"a":"{CANARY}é"}}]'.encode("latin-1"), "is not UTF-8"),
        ("e.csv", f"{CANARY},2026-09-14,3\n".encode(), "not a header: column 2"),
        ("e.csv", b"rx,rx\n", "not a header: column 1"),
        ("e.csv", b"", "not a header: column 1"),
        ("e.csv", f'rx\n"{CANARY}" x\n'.encode(), "not CSV"),
        ("e.csv", b"rx\n" + b"x" * (MOST + 1) + b"\n", f"has a cell of more than {MOST} characters"),
        ("e.json", f'[{{"a":"{CANARY}"}}\n'.encode(), "begins like a JSON array"),
        ("e.json", f'[{{"a":"{CANARY}"}} {{}}]'.encode(), "begins like a JSON array"),
        ("e.json", b"[1,]", "begins like a JSON array"),
        ("e.json", b"[" * 100_000, "begins like a JSON array"),
    ],
)
def test_a_file_that_is_none_of_the_three_is_refused_in_one_line_without_what_is_in_it(
    tmp_path: Path, name: str, content: bytes, says: str
) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        read(tmp_path, content, name)

    assert CANARY not in str(caught.value)
    assert "\n" not in str(caught.value)
