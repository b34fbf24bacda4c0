"""Read bodies from a file exported by another system: NDJSON, one JSON array, or CSV with a header line."""

import csv
import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple

import orjson

from bridge.errors import ConfigError

TOO_LARGE = "body_too_large"
_BOM = b"\xef\xbb\xbf"
# Form of a column name; a first line with a date, number or empty cell is data.
_is_name = re.compile(r"[^\W\d][\w .:/#()-]{0,127}").fullmatch
_gap = re.compile(r"[ \t\r\n]*")


class Body(NamedTuple):
    """One body of the file, or the reason why a line or element has none."""

    number: int  # number of its line or array element, from 1
    body: bytes  # exact bytes of the line or element; for CSV, a JSON object of the row's non-empty cells
    unfit: str = ""  # reason why there is no body: `body_too_large` or `csv_columns`; empty if there is a body


def bodies_of(path: Path, *, body_max_bytes: int) -> Iterator[Body]:
    """Yield the bodies of a file. An array is read and split as a whole before its first body is yielded.

    Raises:
        ConfigError: The file cannot be read or has another format; the message contains no content of the file.
    """
    try:
        with path.open("rb") as file:
            kind = _rows if path.suffix.lower() == ".csv" else _elements if _is_array(file) else _documents
            for line in kind(file, body_max_bytes):
                yield line if len(line.body) <= body_max_bytes else Body(line.number, b"", TOO_LARGE)
    except OSError as exc:
        problem = f"cannot be read ({exc.strerror})"
    except UnicodeDecodeError:
        problem = "is not UTF-8"
    except csv.Error as exc:
        problem = "is not CSV with commas and double quotes"
        if "field limit" in str(exc):
            problem = f"has a cell of more than {body_max_bytes} characters, or a double quote that has no end"
    except (ValueError, RecursionError):
        problem = "begins like a JSON array but is not valid JSON"
    else:
        return
    raise ConfigError(f"{path}: {problem}")


def _is_array(file: BinaryIO) -> bool:
    """Return whether a file is one JSON array; a first line of complete JSON with more lines after it means NDJSON."""
    first, second = file.readline().removeprefix(_BOM).strip(), file.readline()
    file.seek(0)
    try:
        return first.startswith(b"[") and (orjson.loads(first), not second.strip())[1]
    except orjson.JSONDecodeError:
        return True


def _documents(file: BinaryIO, body_max_bytes: int) -> Iterator[Body]:
    most = body_max_bytes + len(_BOM) + 2  # a line break may be two characters
    number = 0
    while line := file.readline(most):
        number += 1
        body = line.removeprefix(_BOM if number == 1 else b"").strip()
        if number == 1 and b"\0" in body:
            raise UnicodeDecodeError("utf-8", b"", 0, 0, "")  # UTF-16 has such bytes
        if len(line) == most and not line.endswith(b"\n"):
            while len(line) == most and not line.endswith(b"\n"):
                line = file.readline(most)
            yield Body(number, b"", TOO_LARGE)
        elif body:
            yield Body(number, body)


def _elements(file: BinaryIO, _: int) -> Iterator[Body]:
    """Split an array into its elements without reformatting them, since numbers have several notations."""
    text, scan = file.read().decode("utf-8-sig"), json.JSONDecoder().raw_decode
    spans: list[tuple[int, int]] = []
    at = _skip(text, 0)
    while text[at : at + 1] != "]" or not spans:
        start = _skip(text, at + 1)
        if not spans and text[start : start + 1] == "]":
            at = start
            break
        _, end = scan(text, start)
        spans.append((start, end))
        at = _skip(text, end)
        if text[at : at + 1] not in {",", "]"}:
            raise ValueError
    if text[_skip(text, at + 1) :]:
        raise ValueError
    for number, (start, end) in enumerate(spans, 1):
        yield Body(number, text[start:end].encode())


def _skip(text: str, at: int) -> int:
    found = _gap.match(text, at)
    return found.end() if found else at


def _rows(file: BinaryIO, body_max_bytes: int) -> Iterator[Body]:
    csv.field_size_limit(body_max_bytes)
    lines = chain([file.readline().removeprefix(_BOM)], file)
    reader = csv.DictReader((line.decode() for line in lines), strict=True)
    names = reader.fieldnames or [""]
    for column, name in enumerate(names, 1):
        if not _is_name(name) or names.count(name) > 1:
            msg = f"{file.name}: its first line is not a header: column {column} has no unique name"
            raise ConfigError(msg)
    for row in reader:
        if None in row or None in row.values():
            yield Body(reader.line_num, b"", "csv_columns")
        else:
            yield Body(reader.line_num, orjson.dumps({name: cell for name, cell in row.items() if cell}))
