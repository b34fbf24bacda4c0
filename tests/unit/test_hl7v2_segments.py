"""Every value stays inside its field."""

import unicodedata

import hl7
from hypothesis import example, given, settings
from hypothesis import strategies as st

from consumers.hl7v2.segments import END, NULL, Formatted, MessageSegment, dropped, write

HEAD = MessageSegment("MSH", {3: "DRX", 12: "2.5.1"})
HOSTILE = st.text(
    st.sampled_from('|^~\\&\r\n\v\f\x00\x1c\x0d\x0b\x1b\x85\u2028\u2029".,FSTRE') | st.characters(codec="utf-8"),
    max_size=30,
)


def line(**fields: object) -> str:
    return write([HEAD, MessageSegment("ZZZ", {int(name[1:]): value for name, value in fields.items()})]).split(END)[1]


def test_components_repetitions_and_subcomponents_have_their_delimiters() -> None:
    assert line(f1="1", f3=[("a", "", ("b", "c")), "d"], f5=NULL, f6=("", None)) == 'ZZZ|1||a^^b&c~d||""'
    assert line(f1="", f2="X", f3="") == "ZZZ||X"


def test_characters_that_no_field_holds_are_counted() -> None:
    assert dropped([MessageSegment("ZZZ", {1: "a\x00b\r\n", 2: [("\x1c", "c")], 3: None})]) == 2


@settings(max_examples=500)
@example(texts=["e\u0301\r\ne", "", "", "e\r\ne"])
@given(texts=st.lists(HOSTILE, min_size=4, max_size=4))
def test_no_text_makes_another_segment_field_or_frame(texts: list[str]) -> None:
    one, two, three, four = texts
    text = write(
        [
            HEAD,
            MessageSegment("ZZZ", {1: "x", 2: one, 3: [(two, three), "y"], 4: Formatted(four), 5: "x"}),
            MessageSegment("ZZ2", {1: "x"}),
        ]
    )

    assert not set(text) & {"\x0b", "\x1c", "\n", "\x00"}
    lines = text.split(END)
    assert [each[:3] for each in lines] == ["MSH", "ZZZ", "ZZ2", ""]
    assert (lines[1].count("|"), lines[1].count("~")) == (5, 1)
    fields = lines[1].split("|")
    assert (fields[1], fields[5]) == ("x", "x")
    parsed = hl7.parse(text)
    assert len(parsed) == 3
    assert parsed.unescape(fields[2]) == meant(one, " ")
    assert parsed.unescape(fields[4]) == meant(four, "\r")


def meant(text: str, line_end: str) -> str:
    """Return what a receiver finds again."""
    ends = "".join(line_end if each in "\n\v\f\r\x85\u2028\u2029" else each for each in text.replace("\r\n", "\n"))
    kept = (
        each for each in unicodedata.normalize("NFC", ends) if each == line_end or unicodedata.category(each) != "Cc"
    )
    found = "".join(kept)
    return "" if found == '""' else found
