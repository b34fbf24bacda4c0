"""How an XML body is read, and the reasons to park it as malformed."""

from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.mapping.xml_body import DEPTH_MAX, NODES_MAX, parse

BOMB = """\
<?xml version="1.0"?>
<!DOCTYPE a [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;">]>
<a>&c;</a>
"""


@pytest.mark.parametrize(
    ("body", "document"),
    [
        ('<Fill no="1"><Drug>A</Drug><Drug/></Fill>', {"Fill": {"@no": "1", "Drug": ["A", ""]}}),
        ("<a><b/></a>", {"a": {"b": ""}}),
        ("<a> x <b>1</b> y </a>", {"a": {"b": "1", "#text": "x  y"}}),
        ("<a><![CDATA[<b>&]]>c</a>", {"a": "<b>&c"}),
        ("<a><!-- no --><?do it?>1</a>", {"a": "1"}),
        ("<a>&lt;&#65;&amp;</a>", {"a": "<A&"}),
        ('<a x="" y="2">1</a>', {"a": {"@x": "", "@y": "2", "#text": "1"}}),
        (
            '<n:a xmlns:n="urn:n" n:x="1"><b xmlns="urn:b">2</b><n:c xmlns:n="urn:o">3</n:c></n:a>',
            {
                "a": {
                    "@x": "1",
                    "@xmlns": {"n": "urn:n"},
                    "b": {"@xmlns": {"": "urn:b"}, "#text": "2"},
                    "c": {"@xmlns": {"n": "urn:o"}, "#text": "3"},
                }
            },
        ),
    ],
)
def test_xml_is_read_as_objects_lists_and_texts(body: str, document: Any) -> None:
    assert parse(body.encode()) == document


@pytest.mark.parametrize("declared", ["", '<?xml version="1.0" encoding="utf-16"?>'])
def test_utf_16_is_read_as_it_is_marked(declared: str) -> None:
    assert parse(f"{declared}<a>ä</a>".encode("utf-16")) == {"a": "ä"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b'{"a": 1}', "syntax"),
        (b"<a>", "syntax"),
        (b"<a/><b/>", "syntax"),
        (b"<a></a>x", "syntax"),
        (b'<a x="1" x="2"/>', "syntax"),
        (b"<n:a/>", "syntax"),
        (b"<a>&x;</a>", "syntax"),
        (b"<a>&#0;</a>", "syntax"),
        (b"<a>\xff</a>", "syntax"),
        (b'<?xml version="1.0" encoding="latin-1"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="utf-16"?><a/>', "encoding"),
        (b'<?xml version="1.0" encoding="x-none"?><a/>', "encoding"),
        ('<?xml version="1.0" encoding="utf-8"?><a/>'.encode("utf-16"), "encoding"),
        ("<a/>".encode("utf-32"), "syntax"),
        (BOMB.encode(), "doctype"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "doctype"),
        (b"<!DOCTYPE a><a/>", "doctype"),
        (b"<a>" * (DEPTH_MAX + 1) + b"</a>" * (DEPTH_MAX + 1), "depth"),
        (b"<a>" * 100_000, "depth"),
        (b"<a>" * (DEPTH_MAX - 1) + b"<b/><b/>" + b"<a>" * 2, "depth"),
        (b"<a>" + b"<b/>" * NODES_MAX + b"</a>", "too_many_nodes"),
        (b"<a " + b" ".join(b'a%d="1"' % n for n in range(NODES_MAX)) + b"/>", "too_many_nodes"),
        (b'<a xmlns:n="u" n:x="1" x="2"/>', "duplicate_name"),
        (b'<a xmlns:n="u" n:xmlns="1"/>', "duplicate_name"),
    ],
)
def test_what_breaks_a_rule_parks_with_its_name(body: bytes, detail: str) -> None:
    assert parse(body) == ParkReason("malformed_xml", detail)


def test_the_bounds_are_allowed() -> None:
    assert isinstance(parse(b"<a>" * DEPTH_MAX + b"</a>" * DEPTH_MAX), dict)
    assert isinstance(parse(b"<a>" + b"<b/>" * (NODES_MAX - 1) + b"</a>"), dict)
