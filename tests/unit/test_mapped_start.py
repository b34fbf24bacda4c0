"""A mapping file that cannot be used ends the start with one line that names the file, the line and the mistake."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.errors import ConfigError
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.mapped import FILE_MAX_BYTES, compile_mapping
from tests.unit.mapping_files import ACCOUNT, ACME, BODY, compiled, event_of

PREFIX = 'prefix = "acme:"'
DATA = 'queue_id = "rx.id"'
WHEN = "when = \"kind == 'STATE'\""

# What is replaced, by what, the line of the mistake, and what is said of it.
BROKEN = [
    (PREFIX, "", 1, "prefix is missing"),
    (PREFIX, 'prefix = "acme"', 1, "prefix is not a letter"),
    (PREFIX, 'prefix = "ACME:"', 1, "prefix is not a letter"),
    (PREFIX, 'prefix = "req:"', 1, "prefix is not a letter"),
    (PREFIX, "prefix = 7", 1, "prefix is no text"),
    (PREFIX, f"{PREFIX}\nnative = true", 1, "a source of native ids has no prefix"),
    (PREFIX, f"{PREFIX}\nnative = 1", 2, "native is true or false"),
    (PREFIX, f"{PREFIX}\nprefixes = 1", 2, "unknown key 'prefixes'"),
    (PREFIX, f'{PREFIX}\nnames = "no_case"', 2, "names is one of as_written, any_case"),
    (PREFIX, f"{PREFIX}\nbucket_s = 1", 2, "bucket_s is a whole number of seconds, 60 to 86400"),
    (PREFIX, f"{PREFIX}\narrays = 'yes'", 2, "arrays is true or false"),
    (PREFIX, f"{PREFIX}\ncontent_types = 'a/b'", 2, "content_types is no list of texts"),
    (PREFIX, "prefix = ", 1, "no TOML: Invalid value"),
    (PREFIX, "prefix 'acme:'", 1, "no TOML: Expected '=' after a key in a key/value pair"),
    ("[[event]]", "[[event]", 6, "no TOML: Expected ']]' at the end of an array declaration"),
    ("America/New_York", "Mars/Olympus", 2, "no time zone is named 'Mars/Olympus'"),
    ('["/patient/ssn"]', '"/patient/ssn"', 3, "drop is no list of texts"),
    ('["/patient/ssn"]', '["patient.ssn"]', 3, "'patient.ssn' of drop is no JSON pointer"),
    ('"/state"]', '"state"]', 4, "'state' of claims is no JSON pointer"),
    ("[[event]]", "[event]", 6, "there is no [[event]]"),
    (WHEN, f"{WHEN}\nif = '1'", 8, "unknown key 'if'"),
    (WHEN, 'when = "kind = 1"', 7, "when: no JMESPath from character 6"),
    (WHEN, 'when = ""', 7, "when: no JMESPath"),
    (WHEN, "when = true", 7, "when is no text: a constant is a literal in back-ticks"),
    (WHEN, f'when = "{"x" * 501}"', 7, "when: longer than 500 characters"),
    (WHEN, f'when = "{"(" * 250}a{")" * 249}"', 7, "when: no JMESPath"),
    (WHEN, "when = \"matches(kind, 'a*')\"", 7, "when: unknown function 'matches'"),
    (WHEN, 'when = "lower(kind, state)"', 7, "when: function 'lower' takes other arguments"),
    (WHEN, 'when = "words(kind)"', 7, "when: function 'words' takes other arguments"),
    (WHEN, "when = \"day(kind, '%d', '%m')\"", 7, "when: function 'day' takes other arguments"),
    (WHEN, "when = \"day(kind, '%Q')\"", 7, "when: '%Q' is no format of a day"),
    (WHEN, "when = \"day(kind, '%d%d')\"", 7, "when: '%d%d' is no format of a day"),
    (WHEN, "when = \"instant(kind, 'Mars')\"", 7, "when: no time zone is named 'Mars'"),
    (WHEN, "when = \"words(kind, 'absent')\"", 7, "when: the table of function 'words'"),
    (WHEN, 'when = "words(kind, `[]`)"', 7, "when: the table of function 'words'"),
    ("fulfillment.status_changed", "fulfilment.changed", 8, "unknown type 'fulfilment.changed'"),
    (
        "fulfillment.status_changed",
        "fulfilment.status_changed",
        8,
        "unknown type 'fulfilment.status_changed'",
    ),
    ('type = "fulfillment.status_changed"', "", 6, "type is missing"),
    (
        *("in_progress", "in_progres", 12),
        "'in_progres' is no word of 'fulfillment_status' in fulfillment.status_changed",
    ),
    (DATA, f"{DATA}\nbilling_status = \"state && 'gratis' || note\"", 12, "'gratis' is no word of 'billing_status'"),
    ('key = "rx.id"', "", 6, "key is missing"),
    ('key = "rx.id"', 'key = "rx."', 9, "key: no JMESPath"),
    (DATA, "", 6, "required field 'queue_id' of fulfillment.status_changed has no expression"),
    (DATA, f'{DATA}\nqueue_no = "rx.id"', 12, "unknown field 'queue_no' of fulfillment.status_changed"),
    (DATA, f'{DATA}\nprescription_id = "rx.id"', 12, "unknown field 'prescription_id'"),
    (DATA, f'{DATA}\nextensions.a = "rx.id"', 12, "unknown field 'extensions.a'"),
    (DATA, f'{DATA}\nlot_number.a = "rx.id"', 12, "unknown field 'lot_number.a'"),
    (DATA, f'{DATA}\npatient.name = "rx.id"', 12, "unknown field 'patient.name'"),
    (DATA, f'{DATA}\npatient.phone = "pt.phone"', 6, "required field 'patient.date_of_birth'"),
    (DATA, f"{DATA}\nactive = '`1`'", 12, "the constant of 'active' does not fit"),
    (DATA, f"{DATA}\npatient_pay = '`\"free\"`'", 12, "the constant of 'patient_pay' does not fit"),
    (DATA, f"{DATA}\nbilling_status = '`\"gratis\"`'", 12, "the constant of 'billing_status' does not fit"),
    (DATA, "queue_id = '`null`'", 11, "the constant of 'queue_id' does not fit"),
    (DATA, f"{DATA}\nactive = true", 12, "data.active is no text"),
    (DATA, f'{DATA}\n"queue_id." = "x"', 12, "unknown field 'queue_id.'"),
    (DATA, f'{DATA}\n"a\\nb" = 7', 10, "unknown field 'a\\nb'"),
    (DATA, f"{DATA}\n{'a.' * 1500}b = 'x'", 12, "unknown field 'a.a.a"),
    (DATA, f"{DATA}\nlot_number = \"day(x, '%d.%m.%d')\"", 12, "data.lot_number: '%d.%m.%d' is no format of a day"),
    (DATA, f"{DATA}\nlot_number = '`\"\\ud800\"`'", 12, "data.lot_number: a text with half of a surrogate pair"),
    (DATA, f"{DATA}\npatient_pay = '`1e400`'", 12, "data.patient_pay: a number that is not finite"),
    (WHEN, 'when = "kind == `NaN`"', 7, "when: a number that is not finite"),
    ("[event.data]", "[event.dates]", 10, "unknown key 'dates'"),
    ("[event.data]", "[tables.a]\nb = 1\n[event.data]", 10, "table 'a' is no table of words"),
]


SENT = """\
prefix = "acme:"
[[event]]
type = "prescription.sent"
key = "id"
[event.data]
delivery_mode = '`"erx"`'
attempt = '`1`'
network_status.kind = '`"status"`'
network_status.code = '`"000"`'
"""


@pytest.mark.parametrize("value", ["'`\"x\"`'", "'word'"], ids=["constant", "expression"])
@pytest.mark.parametrize("name", ["network_status.raw_kind", "raw_delivery_mode"])
def test_a_word_of_the_vendor_s_is_no_field_that_a_file_may_set(name: str, value: str) -> None:
    assert complaint(f"{SENT}{name} = {value}") == f"acme.toml:10: unknown field {name!r} of prescription.sent"


def test_a_list_of_records_has_no_parts() -> None:
    text = ACME.replace("fulfillment.status_changed", "change.requested")
    text = text.replace(DATA, 'request_id = "id"\nmedications_requested.description = "x"')

    assert "acme.toml:12: unknown field 'medications_requested.description'" in complaint(text)


def complaint(text: str, options: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compile_mapping(text.encode(), "acme.toml", ACCOUNT if options is None else options)
    return str(caught.value)


def test_a_word_of_a_named_table_is_looked_at_where_the_table_is_used() -> None:
    named = ACME.replace(PREFIX, f'{PREFIX}\ntables = {{ steps = {{ DONE = "packd", OFF = "UNKNOWN" }} }}')
    text = "".join([*named.splitlines(keepends=True)[:-1], "fulfillment_status = \"words(state, 'steps')\"\n"])

    assert complaint(text).startswith("acme.toml:13: 'packd' is no word of 'fulfillment_status'")
    assert compiled(text.replace("packd", "packed"))


@pytest.mark.parametrize(("old", "new", "line", "says"), BROKEN, ids=[each[3] for each in BROKEN])
def test_a_mistake_is_said_in_one_line_with_its_place(old: str, new: str, line: int, says: str) -> None:
    assert old in ACME

    said = complaint(ACME.replace(old, new, 1))

    assert said.startswith(f"acme.toml:{line}: {says}")
    assert "\n" not in said


PIECES = (
    *('"', "'", "`", "[", "]", "{", "}", "(", ")", "=", "\n", ".", "*", "@", "&a", "[::0]", "[?a]", "[[event]]", '"""'),
    *("words(", "day(a, '%y%y')", "instant(a, `[]`)", "`1e999`", '`{"a":1}`', "true", "1979-01-01", "nan", "root"),
    *('"/~2"', '"/"', "patient.", "network_status.", "extensions", "raw_status", "\x00", "é", "99999999999999999999"),
)


@given(
    edits=st.lists(
        st.tuples(st.integers(0, len(ACME)), st.integers(0, 20), st.sampled_from(PIECES) | st.text(max_size=5)),
        min_size=1,
        max_size=4,
    )
)
@settings(max_examples=500)
def test_a_spoilt_file_compiles_or_is_said_in_one_line(edits: list[tuple[int, int, str]]) -> None:
    text = ACME
    for at, length, piece in edits:
        text = text[:at] + piece + text[at + length :]

    try:
        said = compile_mapping(text.encode("utf-8", "surrogatepass"), "acme.toml", ACCOUNT).sha256
    except ConfigError as exc:
        said = str(exc)

    assert re.fullmatch(r"[0-9a-f]{64}|acme\.toml:[0-9]+: [^\n]+", said)


def test_an_account_must_come_from_somewhere() -> None:
    assert complaint(ACME, {}).startswith("acme.toml:6: account is missing, and the source has no option account_id")


def test_a_file_has_bounds() -> None:
    events = ACME[ACME.index("[[event]]") :]

    assert "more than 100 expressions" in complaint(ACME + events * 25)
    assert "larger than" in complaint(ACME + "#" * FILE_MAX_BYTES)


def test_bytes_that_are_no_text_are_said_with_their_line() -> None:
    with pytest.raises(ConfigError, match=r"^acme.toml:2: not UTF-8$"):
        compile_mapping(b'prefix = "acme:"\n\xff', "acme.toml", ACCOUNT)


def test_the_option_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(ACME.replace("queue_id", "queue_no"))

    with pytest.raises(ConfigError) as unknown:
        load_profile("mapped", ACCOUNT | {"mapping": str(file)})
    with pytest.raises(ConfigError, match=r"^options.mapping is required"):
        load_profile("mapped", ACCOUNT)
    with pytest.raises(ConfigError, match=r"^options.mapping: cannot read .*/absent$"):
        load_profile("mapped", ACCOUNT | {"mapping": f"{tmp_path}/absent"})

    assert str(unknown.value) == (f"options.mapping: {file}:11: unknown field 'queue_no' of fulfillment.status_changed")


def test_two_files_with_one_expression_have_tables_of_their_own() -> None:
    text = ACME.replace('`{\\"IN_WORK\\":\\"in_progress\\",\\"DONE\\":\\"packed\\"}`', "'state'")
    files = [compiled(f'{text}[tables.state]\nDONE = "{status}"\n') for status in ("packed", "approved")]

    assert [event_of(file, BODY).value["fulfillment_status"] for file in files] == ["packed", "approved"]


def test_words_may_stand_in_a_table_of_the_file() -> None:
    text = ACME.replace('`{\\"IN_WORK\\":\\"in_progress\\",\\"DONE\\":\\"packed\\"}`', "'state'")
    assert text != ACME

    compile_mapping((text + '[tables.state]\nDONE = "packed"\n').encode(), "acme.toml", ACCOUNT)
