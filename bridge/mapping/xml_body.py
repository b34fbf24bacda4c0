"""Parse an XML body into objects, lists and strings as JSON has; never raises.

    <Fill no="1"><Drug>A</Drug><Drug/></Fill>       {"Fill": {"@no": "1", "Drug": ["A", ""]}}

Namespace prefixes are removed. An element becomes an object or a string, and repeated elements become a list. Text next
to elements becomes `#text`, and an empty element becomes an empty string. Comments and instructions are ignored.

A document type declaration could define exponentially growing entities or refer to files, so such a body is parked.
"""

from collections import defaultdict
from xml.parsers import expat

import xmltodict  # noqa: TID251 - this is its wrapper

from bridge.event import ParkReason

DEPTH_MAX = 64
# Elements and attributes, at about 4 µs each. A SCRIPT message has a few hundred of them.
NODES_MAX = 10_000
# Allowed encodings of an XML declaration; the parser refuses a body in another encoding, or UTF-16 without a BOM.
_ENCODINGS = frozenset({"", "utf-8", "utf-16"})

_OF_ENCODING = {
    expat.errors.codes[each]
    for each in (expat.errors.XML_ERROR_INCORRECT_ENCODING, expat.errors.XML_ERROR_UNKNOWN_ENCODING)
}


class _RefusedError(Exception):
    """The document breaks one of our rules; the message is the name of the rule."""


def parse(body: bytes) -> dict[str, object] | ParkReason:
    """Return the parsed document, or a `ParkReason` `malformed_xml` whose detail is the first broken rule.

    The details are `empty`, `syntax`, `encoding`, `doctype`, `depth`, `too_many_nodes`, and `duplicate_name` for
    attributes of an element that differ only in their prefix.
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
    """Check a document against our rules before it is built."""
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
