"""Parse a body as XML, into the objects, lists and texts that JSON would have; no parser error escapes.

    <Fill no="1"><Drug>A</Drug><Drug/></Fill>       {"Fill": {"@no": "1", "Drug": ["A", ""]}}

Names lose their prefixes. An element is an object or a text, and repeated elements are a list. Text next to elements is
`#text`, and an element without content an empty text. Comments and processing instructions are passed over.

A document type could define entities that grow without end, or name files. So there is none: a body with one is parked.
"""

from collections import defaultdict
from xml.parsers import expat

import xmltodict  # noqa: TID251 - this is its door

from bridge.event import ParkReason

DEPTH_MAX = 64
# Elements and attributes, of some 4 microseconds each. A message of SCRIPT has some hundreds.
NODES_MAX = 10_000
# What an XML declaration may say; the parser refuses a body that is not as it says, or is UTF-16 without a mark.
_ENCODINGS = frozenset({"", "utf-8", "utf-16"})


_OF_ENCODING = {
    expat.errors.codes[each]
    for each in (expat.errors.XML_ERROR_INCORRECT_ENCODING, expat.errors.XML_ERROR_UNKNOWN_ENCODING)
}


class _RefusedError(Exception):
    """A rule of ours is broken, by its name."""


def parse(body: bytes) -> dict[str, object] | ParkReason:
    """Read one XML document; else `malformed_xml`, with the first rule that is broken.

    The details are `empty`, `syntax`, `encoding`, `doctype`, `depth`, `too_many_nodes`, and `duplicate_name` for
    attributes of an element that only prefixes tell apart.
    """
    try:
        _survey(body)
        found: dict[str, object] = xmltodict.parse(
            body,
            process_namespaces=True,
            namespaces=defaultdict(str),
            postprocessor=lambda _, name, value: (name, "" if value is None else value),
        )
    except _RefusedError as exc:
        return ParkReason("malformed_xml", str(exc))
    except (expat.ExpatError, ValueError) as exc:
        code = exc.code if isinstance(exc, expat.ExpatError) else None
        syntax = "encoding" if code in _OF_ENCODING else "syntax"
        return ParkReason("malformed_xml", syntax if body.strip() else "empty")
    return found


def _survey(body: bytes) -> None:
    """Hold a document to our rules before anything is made of it."""
    depth = nodes = 0

    def begin(_: str, attributes: list[str]) -> None:
        nonlocal depth, nodes
        names = [name.rpartition(" ")[2] for name in attributes[::2]]
        depth, nodes = depth + 1, nodes + 1 + len(names)
        if depth > DEPTH_MAX:
            raise _RefusedError("depth")
        if nodes > NODES_MAX:
            raise _RefusedError("too_many_nodes")
        if len(set(names)) < len(names) or "xmlns" in names:
            raise _RefusedError("duplicate_name")

    def end(_: str) -> None:
        nonlocal depth
        depth -= 1

    def declare(_: str, encoding: str | None, __: int) -> None:
        if (encoding or "").lower() not in _ENCODINGS:
            raise _RefusedError("encoding")

    def refuse(*_: object) -> None:
        raise _RefusedError("doctype")

    parser = expat.ParserCreate(namespace_separator=" ")
    parser.ordered_attributes = True
    parser.StartElementHandler, parser.EndElementHandler = begin, end
    parser.XmlDeclHandler, parser.StartDoctypeDeclHandler = declare, refuse
    parser.Parse(body, True)  # noqa: FBT003 - positional in the library
