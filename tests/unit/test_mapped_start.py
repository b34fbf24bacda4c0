"""A mapping file that cannot be used ends the start with one line that names the file, the place and the mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.profiles.mapped import compile_mapping
from bridge.ingress.profiles.mapping_file import FILE_MAX_BYTES
from tests.unit.mapping_files import ACCOUNT, ACME, BODY, compiled, event_of

PREFIX = 'prefix = "acme:"'
DATA = 'queue_id = "rx.id"'
WHEN = "when = \"kind == 'STATE'\""
TYPE = 'type = "fulfillment.status_changed"'

# What is replaced, by what, and what is said of it.
BROKEN = [
    (PREFIX, "", "prefix: is missing"),
    (PREFIX, 'prefix = "acme"', "prefix: is not a letter"),
    (PREFIX, f"{PREFIX}\nnative = true", "prefix: a source of native ids has no prefix"),
    (PREFIX, f"{PREFIX}\nprefixes = 1", "prefixes: Extra inputs are not permitted"),
    (PREFIX, f"{PREFIX}\narray = 'best'", "array: needs best and key"),
    (PREFIX, f"{PREFIX}\noption_tables = ['a']", "option_tables: there is no [tables.a]"),
    (PREFIX, "prefix = ", "no TOML: Invalid value (at line 1, column 10)"),
    ("America/New_York", "Mars/Olympus", "zone: no time zone is named 'Mars/Olympus'"),
    ('["/patient/ssn"]', '["patient.ssn"]', "drop.1: String should match pattern"),
    (WHEN, f"{WHEN}\nif = '1'", "event.1.if: Extra inputs are not permitted"),
    (WHEN, 'when = "kind = 1"', "event.1.when: no JMESPath from character 6"),
    (WHEN, f'when = "{"x" * 501}"', "event.1.when: longer than 500 characters"),
    (WHEN, f'when = "{"(" * 250}a{")" * 249}"', "event.1.when: no JMESPath"),
    (WHEN, "when = \"matches(kind, 'a*')\"", "event.1.when: unknown function 'matches'"),
    (WHEN, 'when = "lower(kind, state)"', "event.1.when: function 'lower' takes other arguments"),
    (WHEN, "when = \"day(kind, '%d', '%m')\"", "event.1.when: function 'day' takes other arguments"),
    (WHEN, "when = \"day(kind, '%Q')\"", "event.1.when: '%Q' is no format of a day"),
    (WHEN, 'when = "day(kind, format)"', "event.1.when: 'None' is no format of a day"),
    (WHEN, "when = \"instant(kind, 'Mars')\"", "event.1.when: no time zone is named 'Mars'"),
    (WHEN, "when = \"words(kind, 'absent')\"", "event.1.when: the table of function 'words'"),
    (WHEN, 'when = "lookup(kind, `[]`)"', "event.1.when: the table of function 'lookup'"),
    (WHEN, 'when = "words(kind, table)"', "event.1.when: the table of function 'words'"),
    (WHEN, 'when = "kind == `NaN`"', "event.1.when: a number that is not finite"),
    (TYPE, 'type = "fulfilment.changed"', "event.1.type: unknown type 'fulfilment.changed'"),
    (TYPE, "", "event.1: needs a type, or park"),
    (TYPE, f'{TYPE}\npark = {{reason = "unknown_type"}}', "event.1: needs a type, or park"),
    (
        TYPE,
        'park = {reason = "unusable", detail = "x"}',
        "event.1.park.detail: Value error, is none of bad_id, bad_key,",
    ),
    (TYPE, 'park = {reason = "unusable"}', "event.1.park: Value error, unusable has a detail, and unknown_type none"),
    ("in_progress", "in_progres", "event.1.data.fulfillment_status: 'in_progres' is no word of 'fulfillment_status'"),
    (
        DATA,
        f"{DATA}\nbilling_status = \"state && 'gratis' || note\"",
        "event.1.data.billing_status: 'gratis' is no word",
    ),
    ('key = "rx.id"', "", "event.1.key: is missing"),
    ('key = "rx.id"', 'key = ["shop", "rx."]', "event.1.key: no JMESPath"),
    (DATA, "", "event.1.data: required field 'queue_id' of fulfillment.status_changed has no expression"),
    (DATA, f'{DATA}\nqueue_no = "rx.id"', "event.1.data.queue_no: unknown field of fulfillment.status_changed"),
    (DATA, f'{DATA}\nlot_number.a = "rx.id"', "event.1.data.lot_number.a: unknown field"),
    (DATA, f'{DATA}\npatient.phone = "pt.phone"', "event.1.data: required field 'patient.last_name'"),
    (DATA, f"{DATA}\nactive = '`1`'", "event.1.data.active: the constant does not fit"),
    (DATA, "queue_id = '`null`'", "event.1.data.queue_id: the constant does not fit"),
    (DATA, f'{DATA}\n"a\\nb" = "7"', "event.1.data.a?b: unknown field"),
    (DATA, f"{DATA}\n{'a.' * 1500}b = 'x'", "event.1.data.a.a.a"),
    (DATA, f"{DATA}\nlot_number = '`\"\\ud800\"`'", "event.1.data.lot_number: a text with half of a surrogate pair"),
    (DATA, f"{DATA}\npatient_pay = '`1e400`'", "event.1.data.patient_pay: a number that is not finite"),
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
    assert complaint(f"{SENT}{name} = {value}") == f"acme.toml: event.1.data.{name}: unknown field of prescription.sent"


def complaint(text: str, options: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compile_mapping(text.encode(), "acme.toml", ACCOUNT if options is None else options)
    return str(caught.value)


def test_a_word_of_a_named_table_is_looked_at_where_the_table_is_used() -> None:
    named = ACME.replace(PREFIX, f'{PREFIX}\ntables = {{ steps = {{ DONE = "packd", OFF = "UNKNOWN" }} }}')
    text = "".join([*named.splitlines(keepends=True)[:-1], "fulfillment_status = \"words(state, 'steps')\"\n"])

    assert complaint(text).startswith("acme.toml: event.1.data.fulfillment_status: 'packd' is no word")
    assert compiled(text.replace("packd", "packed"))


@pytest.mark.parametrize(("old", "new", "says"), BROKEN, ids=[each[2] for each in BROKEN])
def test_a_mistake_is_said_in_one_line_with_its_place(old: str, new: str, says: str) -> None:
    assert old in ACME

    said = complaint(ACME.replace(old, new, 1))

    assert said.startswith(f"acme.toml: {says}")
    assert "\n" not in said


def test_an_account_must_come_from_somewhere() -> None:
    assert complaint(ACME, {}).startswith(
        "acme.toml: event.1.account: is missing, and the source has no option account_id"
    )


def test_a_file_has_bounds() -> None:
    events = ACME[ACME.index("[[event]]") :]

    assert "more than 100 expressions" in complaint(ACME + events * 25)
    assert "larger than" in complaint(ACME + "#" * FILE_MAX_BYTES)


def test_the_option_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(ACME.replace("queue_id", "queue_no"))

    with pytest.raises(ConfigError) as unknown:
        load_profile("mapped", ACCOUNT | {"mapping": str(file)})
    with pytest.raises(ConfigError, match=r"^options.mapping is required"):
        load_profile("mapped", ACCOUNT)
    with pytest.raises(ConfigError, match=r"^options.mapping: cannot read .*/absent$"):
        load_profile("mapped", ACCOUNT | {"mapping": f"{tmp_path}/absent"})

    assert str(unknown.value) == (
        f"options.mapping: {file}: event.1.data.queue_no: unknown field of fulfillment.status_changed"
    )


def test_two_files_with_one_expression_have_tables_of_their_own() -> None:
    text = ACME.replace('`{\\"IN_WORK\\":\\"in_progress\\",\\"DONE\\":\\"packed\\"}`', "'state'")
    files = [compiled(f'{text}[tables.state]\nDONE = "{status}"\n') for status in ("packed", "approved")]

    assert [event_of(file, BODY).value["fulfillment_status"] for file in files] == ["packed", "approved"]
