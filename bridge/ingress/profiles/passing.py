"""What one pass over a document collects beside the values: faults, leniencies, and what the contract does not know."""

from __future__ import annotations

from enum import IntEnum

from bridge.ingress.profiles.profile import Flag
from bridge.ingress.strict_json import to_json_text


class Detail(IntEnum):
    """Why a document is `unusable`, in the order of precedence: the lowest one found anywhere is the one reported."""

    NO_KEY = 0
    BAD_KEY = 1
    BAD_ID = 2
    BAD_TIME = 3
    BAD_VERSION = 4
    MISSING_FIELD = 5
    WRONG_TYPE = 6
    OUT_OF_RANGE = 7


class Pass:
    """The notes of one pass.

    Attributes:
        worst: The first detail in the order of precedence, None while the document is usable.
        field: Path of the first field with that detail; array indexes and map keys as `*`.
        flags: Leniencies used.
        extensions: JSON pointer from the root of the body -> JSON text of an unknown subtree.
        indexes: Positions in the arrays that enclose the field being read, outermost first.
    """

    __slots__ = ("extensions", "field", "flags", "indexes", "worst")

    def __init__(self) -> None:
        """Start with nothing to report."""
        self.worst: Detail | None = None
        self.field = ""
        self.flags: set[Flag] = set()
        self.extensions: dict[str, str] = {}
        self.indexes: list[int] = []

    def fault(self, detail: Detail, path: str) -> None:
        """Note that the field at `path` makes the document unusable."""
        if self.worst is None or detail < self.worst:
            self.worst = detail
            self.field = path

    def keep(self, path: str, name: str, value: object) -> None:
        """Keep the unknown member `name` of the object at `path`, whole.

        Source: RFC 6901, section 3 (the escapes of a JSON pointer).
        """
        for index in self.indexes:
            path = path.replace("*", str(index), 1)
        escaped = name.replace("~", "~0").replace("/", "~1")
        self.extensions[f"{path}/{escaped}"] = to_json_text(value)
