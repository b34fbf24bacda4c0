"""Readers of what holds other fields: objects, arrays and maps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bridge.ingress.profiles.fields import UNKNOWN, Put, Read
from bridge.ingress.profiles.passing import Detail, Pass


class Members:
    """The members of one object: which of them the contract knows, and where each goes.

    Attributes:
        path: Path of the object, array indexes as `*`.
        puts: Member name -> what reads it.
        required: Names that must be there and not null.
    """

    __slots__ = ("path", "puts", "required")

    def __init__(self, path: str, puts: Mapping[str, Put], required: Iterable[str]) -> None:
        """Keep the compiled members."""
        self.path = path
        self.puts = dict(puts)
        self.required = tuple(required)

    def read(self, item: dict[str, object], out: dict[str, object], run: Pass) -> None:
        """Read the object `item` into `out`; an unknown member is kept, a null is the same as no member."""
        for name in self.required:
            if item.get(name) is None:
                run.fault(Detail.MISSING_FIELD, f"{self.path}/{name}")
        find = self.puts.get
        for name, value in item.items():
            put = find(name)
            if put is None:
                run.keep(self.path, name, value)
            elif value is not None:
                put(out, value, run)


def read_record(members: Members, blank: dict[str, object]) -> Read:
    """Read an object into a record of its own; `blank` is that record with nothing read."""
    read_members, path = members.read, members.path

    def read(item: object, run: Pass) -> dict[str, object] | None:
        if type(item) is not dict:
            run.fault(Detail.WRONG_TYPE, path)
            return None
        out = blank.copy()
        read_members(item, out, run)
        return out

    return read


def read_array(path: str, read_element: Read) -> Read:
    """Read an array; a null is no element."""

    def read(item: object, run: Pass) -> list[object] | None:
        if type(item) is not list:
            run.fault(Detail.WRONG_TYPE, path)
            return None
        out = []
        for index, element in enumerate(item):
            run.indexes.append(index)
            out.append(read_element(element, run))
            run.indexes.pop()
        return out

    return read


def read_map(path: str) -> Read:
    """Read a map of strings; its keys come from the source, so they stand as `*` in a fault."""

    def read(item: object, run: Pass) -> dict[str, object] | None:
        if type(item) is not dict:
            run.fault(Detail.WRONG_TYPE, path)
            return None
        for value in item.values():
            if type(value) is not str:
                run.fault(Detail.WRONG_TYPE, f"{path}/*")
        return dict(item)

    return read


def put_words(name: str, path: str, words: Iterable[str]) -> Put:
    """Take an array of words of a list; others become UNKNOWN and are kept beside it, in their order."""
    listed = frozenset(words) - {UNKNOWN}
    raw = f"raw_{name}"

    def put(out: dict[str, object], item: object, run: Pass) -> None:
        if type(item) is not list:
            run.fault(Detail.WRONG_TYPE, path)
            return
        if not all(type(word) is str for word in item):
            run.fault(Detail.WRONG_TYPE, f"{path}/*")
            return
        out[name] = [word if word in listed else UNKNOWN for word in item]
        out[raw] = unlisted = [word for word in item if word not in listed]
        if unlisted:
            run.flags.add("enum_unknown")

    return put
