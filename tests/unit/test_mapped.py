"""Results of a mapping file: events, extensions and reasons to park; and errors of the file."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.mapping.lookup import load_profile
from bridge.mapping.mapped import compile_mapping
from bridge.mapping.mapping_file import FILE_MAX_BYTES
from bridge.mapping.preview import map_body
from bridge.mapping.profile import IGNORED, Mapped, read_body
from tests.profile_properties import assert_writable
from tests.unit.mapping_files import ACCOUNT, ACME, BODY, compiled, with_lines
from tests.unit.profile_documents import RECEIVED_AT
from tests.unit.vendor_documents import event_of, outcome_of, parked, said

# A list whose elements are events, each with the account of the whole body.
BATCH = """\
prefix = "acme:"
[[event]]
each = "lines"
when = "state != 'SKIP'"
type = "fulfillment.status_changed"
key = "no"
account = "root.shop"
[event.data]
queue_id = "no"
fulfillment_status = "lower(state)"
"""


def test_the_hash_of_the_file_goes_with_each_event() -> None:
    mapping = compiled()

    assert event_of(mapping, BODY).mapping == mapping.sha256[:12]
    assert event_of(compiled(ACME + "# another file\n"), BODY).mapping != mapping.sha256[:12]


def test_a_key_of_several_parts_may_lack_all_but_the_last() -> None:
    mapping = compiled(ACME.replace('key = "rx.id"', 'key = "[shop, rx.id]"'))

    longest = "7" * 117  # 128 characters with the rest
    assert event_of(mapping, BODY | {"shop": "1:2", "rx": {"id": longest}}).key == f"acme:1%3A2:{longest}"
    assert event_of(mapping, BODY).key == "acme:7"
    assert parked(mapping, BODY | {"shop": "1", "rx": {}}).detail == "no_key"
    assert parked(mapping, BODY | {"shop": "a b"}) == ParkReason("unusable", "bad_key", "/shop")
    mapping = compiled(ACME.replace('key = "rx.id"', 'key = ["id(shop)", "rx.id"]'))
    assert event_of(mapping, BODY | {"shop": True}).value["extensions"] == {"/shop": "true"}


def test_native_ids_have_no_prefix_and_begin_with_none() -> None:
    mapping = compiled(ACME.replace('prefix = "acme:"', "native = true"))

    assert event_of(mapping, BODY).key == "7"
    assert event_of(mapping, BODY | {"rx": {"id": "7" * 128}}).key == "7" * 128
    for taken in ("q:7", "ds:7", "ph:7", "req:7", "other:7", "7" * 129):
        assert parked(mapping.refusing(("other:",)), BODY | {"rx": {"id": taken}}).detail == "bad_key"
    several = compiled(ACME.replace('prefix = "acme:"', "native = true").replace('"rx.id"', '["shop", "rx.id"]', 1))
    assert parked(several, BODY | {"shop": "1"}).detail == "bad_key"


def test_leading_fields_have_expressions_of_their_own() -> None:
    mapping = with_lines('id = "no"', 'time = "at"', 'account = "shop"', 'correlation = "order"')
    body = BODY | {"no": 12, "at": "9/18/2026 5:00 PM", "shop": 3, "order": "o_1"}

    outcome = outcome_of(mapping, body, id="dlv_1")

    (event,) = outcome.events
    assert event.id == "12/fulfillment.status_changed"
    assert event.occurred_at == datetime(2026, 9, 18, 21, tzinfo=UTC)
    assert (event.value["account_id"], event.value["correlation_id"]) == ("3", "o_1")
    assert outcome.flags == ("local_time",)


@pytest.mark.parametrize(
    ("at", "moment"),
    [
        (1789398566, datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)),
        (1789398566123, datetime(2026, 9, 14, 15, 9, 26, 123000, tzinfo=UTC)),
        ("2026-09-14T15:09:26Z", datetime(2026, 9, 14, 15, 9, 26, tzinfo=UTC)),
        ("soon", RECEIVED_AT),
        ("0000-01-01", RECEIVED_AT),
        ("9/18/2026 12:30 PM", datetime(2026, 9, 18, 16, 30, tzinfo=UTC)),
        ("9/18/2026 12:30 AM", datetime(2026, 9, 18, 4, 30, tzinfo=UTC)),
        (True, RECEIVED_AT),
        (None, RECEIVED_AT),
        ({}, RECEIVED_AT),
    ],
)
def test_a_time_that_cannot_be_read_is_that_of_receipt(at: object, moment: datetime) -> None:
    outcome = outcome_of(with_lines('time = "at"', data='raw_status = "time()"'), BODY | {"at": at})

    assert outcome.events[0].occurred_at == moment
    assert outcome.events[0].value["raw_status"] == moment.isoformat()
    assert ("time_of_receipt" in outcome.flags) == (moment == RECEIVED_AT)


def test_an_id_that_cannot_stand_in_a_header_is_that_of_the_delivery() -> None:
    outcome = outcome_of(with_lines('id = "no"'), BODY | {"no": "a b"}, id="dlv_1")

    assert outcome.events[0].id == "dlv_1/fulfillment.status_changed"
    assert "field_unfit" in outcome.flags


@pytest.mark.parametrize(
    ("when", "kept"),
    [
        ("kind == 'STATE'", set()),
        ("contains(['STATE', 'X'], kind)", set()),
        ("kind != 'X'", {"/kind"}),
        ("starts_with(kind, 'S') && contains(kind, 'ST') && length(kind) > `2`", {"/kind"}),
        ("type(kind) == 'string' && given(rx.lot)", {"/kind"}),
        ("!(kind == 'X' || contains(['Y'], kind))", {"/kind"}),
        ("kind != 'X' && kind == 'STATE'", set()),
        ("kind", {"/kind"}),
        ("kind && version == `1`", {"/kind"}),
        ("!(!kind)", {"/kind"}),
        ("[@][?kind].state", {"/kind"}),
    ],
)
def test_what_an_expression_reads_is_not_kept_again_but_what_it_only_looks_at(when: str, kept: set[str]) -> None:
    text = ACME.replace("kind == 'STATE'", when) + "raw_status = \"note == 'x' && note || state\"\n"
    more = 'claims = ["/version", "/rx/more", "/note"]\n'

    event = event_of(
        compiled(more + text), BODY | {"rx": {"id": "7", "lot": "L", "more": {}}, "version": 1, "note": "n"}
    )

    assert event.value["extensions"].keys() == {"/rx/lot", "/rx/more", "/note", *kept}  # type: ignore[attr-defined]


def test_claims_of_a_table_are_looked_up_once_however_many_events_it_makes() -> None:
    mapping = compiled(BATCH.replace("[event.data]", 'claims = ["/lines/*/more"]\n[event.data]'))

    outcome = outcome_of(
        mapping, {"shop": "s", "lines": [{"no": str(n), "state": "PACKED", "more": 1} for n in range(300)]}
    )

    assert not any(event.value["extensions"] for event in outcome.events)


def test_an_optional_field_that_does_not_fit_stays_out_and_what_it_read_is_kept() -> None:
    mapping = with_lines(data='patient_pay = "price"\nlot_number = "lot"')

    outcome = outcome_of(mapping, BODY | {"price": "$7", "lot": "L1"})

    assert said(outcome.events[0]) == {"queue_id": "7", "fulfillment_status": "packed", "lot_number": "L1"}
    assert outcome.events[0].value["extensions"] == {"/price": '"$7"'}
    assert "field_unfit" in outcome.flags


def test_numbers_stay_exact_and_constants_are_what_they_say() -> None:
    mapping = with_lines(data="patient_pay = \"to_number('1.5')\"\nactive = '`true`'\nraw_status = \"text(weight)\"")

    assert said(event_of(mapping, b'{"kind":"STATE","rx":{"id":7},"state":"DONE","weight":1.50e1}')) == {
        "queue_id": "7",
        "fulfillment_status": "packed",
        "patient_pay": Decimal("1.50"),
        "active": True,
        "raw_status": "1.50e1",
    }


PATIENT = """\
patient.first_name = "pt.first"
patient.last_name = "pt.last"
patient.date_of_birth = "day(pt.born)"
patient.sex = "pt.sex"
patient.phone = "pt.phone"
patient.address.city = "pt.city"
"""
PERSON = {"first": "A", "last": "B", "born": "9/1/1979", "sex": "F", "phone": "1", "city": "Novi"}


def test_a_nested_record_is_given_by_its_parts() -> None:
    value = event_of(with_lines(data=PATIENT), BODY | {"pt": PERSON}).value

    assert isinstance(patient := value["patient"], dict)
    assert (patient["first_name"], patient["phone"], patient["address"]["city"]) == ("A", "1", "Novi")
    assert patient["date_of_birth"].isoformat() == "1979-09-01"


def test_a_nested_record_is_given_whole_and_kept_if_it_has_more() -> None:
    mapping = with_lines(data="medication = '{description: drug, ndc: code}'\n")
    value = event_of(mapping, BODY | {"drug": "Amoxicillin 500 mg", "code": "00093310905"}).value["medication"]

    assert isinstance(value, dict)
    assert (value["description"], value["ndc"]) == ("Amoxicillin 500 mg", "00093310905")
    mapping = with_lines(data="medication = 'med'\n")
    more = event_of(mapping, BODY | {"med": {"description": "A", "shape": 1}})
    assert more.value["extensions"] == {"/med": '{"description":"A","shape":1}'}
    mapping = with_lines(data="medication = 'med'\nraw_status = 'med.description'\n")
    assert event_of(mapping, BODY | {"med": {"description": "A", "ndc": "1"}}).value["extensions"] == {}


def test_a_part_that_does_not_fit_stays_out_and_takes_the_record_along_if_it_needs_it() -> None:
    mapping = with_lines(data=PATIENT)
    outcome = outcome_of(mapping, BODY | {"pt": PERSON | {"phone": 7, "city": True}})
    none = outcome_of(mapping, BODY | {"pt": PERSON | {"last": 7}})

    assert isinstance(without := outcome.events[0].value["patient"], dict)
    assert (without["phone"], without["first_name"], outcome.flags) == (None, "A", ("field_unfit", "time_of_receipt"))
    assert none.events[0].value["patient"] is None
    assert "field_unfit" in none.flags
    assert '"first":"A"' in str(none.events[0].value["extensions"])


@pytest.mark.parametrize(("given", "parks"), [({"b": 7}, ("wrong_type", "/b")), ({"b": None}, ("missing_field", "/a"))])
def test_a_required_record_without_a_part_that_it_needs_parks(given: dict[str, object], parks: tuple[str, str]) -> None:
    head = ACME.replace("fulfillment.status_changed", "prescription.processed").partition("queue_id")[0]
    mapping = compiled(f"{head}network_status.kind = 'a'\nnetwork_status.code = 'b'\n")

    assert parked(mapping, BODY | {"a": "success", **given}) == ParkReason("unusable", *parks, "acme:7")


def test_a_nested_record_is_not_there_for_the_sake_of_its_constants() -> None:
    data = "pharmacy.ncpdp_id = 'ncpdp'\npharmacy.phone = 'phone'\npharmacy.name = '`\"Acme\"`'\n"
    mapping = with_lines(data=data)

    without, given = outcome_of(mapping, BODY), outcome_of(mapping, BODY | {"ncpdp": "1234567"})

    assert without.events[0].value["pharmacy"] is None
    assert "field_unfit" not in without.flags
    assert isinstance(pharmacy := given.events[0].value["pharmacy"], dict)
    assert (pharmacy["ncpdp_id"], pharmacy["name"]) == ("1234567", "Acme")


def test_what_many_elements_have_in_common_is_not_repeated_without_end() -> None:
    lines = [{"no": str(number), "state": "PACKED", "z": 1} for number in range(30)]
    body = {"shop": "s", "w": "y" * 72_000, "x": "y" * 1000, "lines": lines}  # 29 copies of the first fit in 2 MiB
    events = outcome_of(compiled(BATCH), body).events

    assert ["/x" in str(event.value["extensions"]) for event in events] == [True] + [False] * 29
    assert all({"/w", f"/lines/{n}/z"} <= event.value["extensions"].keys() for n, event in enumerate(events))  # type: ignore[attr-defined]


NAMED = BATCH.replace('each = "lines"', 'each = "lines"\nname = "step"')
SECOND = BATCH.partition("[[event]]")[2]


def test_an_id_does_not_hang_on_the_place_of_its_table() -> None:
    """A mended mapping must not give a fact another id: consumers would have it twice."""
    body = {"kind": "STATE", "rx": {"id": "7"}, "state": "DONE", "shop": "s", "lines": [{"no": "1", "state": "PACKED"}]}
    other = '[[event]]\ntype = "prescription.updated"\nkey = "rx.id"\n[event.data]\nchanged_fields = \'`[]`\'\n'
    head, event = ACME.split("[[event]]\n")
    before = {each.id for each in outcome_of(compiled(), body, id="d").events}
    line = NAMED.partition("[[event]]")[2]

    for tables in (f"{other}[[event]]\n{event}", f"[[event]]\n{event}{other}", f"[[event]]{line}[[event]]\n{event}"):
        assert before <= {each.id for each in outcome_of(compiled(head + tables), body, id="d").events}
    for tables in (line, f"{SECOND}[[event]]{line}"):
        assert "d/1.step" in {each.id for each in outcome_of(compiled(f"{head}[[event]]{tables}"), body, id="d").events}


REPORTING = 'reported = "kind"\nkey = "rx.id"\naccount = "shop"\nignore = ["BEAT"]\n'


@pytest.mark.parametrize(
    ("body", "parks"),
    [
        ({"kind": "GONE"}, ParkReason("unknown_type", field="/kind")),
        ({"kind": "GONE", "shop": "a b"}, ParkReason("unusable", "bad_key", "/account")),
        ({"kind": "it is gone", "shop": "s"}, ParkReason("unknown_type", field="/kind")),
        ({"kind": "it is gone", "rx": {"id": "7"}, "shop": "s"}, ParkReason("unknown_type", "", "/kind", "acme:7")),
        ({"kind": 7, "shop": "s"}, ParkReason("unknown_type", field="/kind")),
        ({"shop": "s"}, ParkReason("unknown_type", field="/kind")),
    ],
)
def test_what_has_no_word_or_is_about_nothing_parks(body: dict[str, Any], parks: ParkReason) -> None:
    assert parked(compiled(REPORTING + ACME, account_id=""), body) == parks


def test_a_file_may_begin_without_any_event() -> None:
    """On the first day nobody knows the bodies: what they are is reported, or kept until the file has tables."""
    body = {"kind": "STATE", "shop": "s_7", "rx": {"id": "10442"}}

    reported = event_of(compiled('prefix = "acme:"\nkey = "rx.id"\naccount = "shop"\nreported = "kind"\n'), body)

    assert (reported.type, reported.key) == ("other.reported", "acme:10442")
    for option, account in (("acct_1", "acct_1"), ("", "s_7")):
        mapping = compiled('native = true\naccount = "shop"\nreported = "kind"\n', account_id=option)
        alone = event_of(mapping, body)
        assert (alone.key, alone.value["account_id"], alone.value["prescription_id"]) == (account, account, None)
    assert parked(compiled('prefix = "acme:"\n'), body).reason == "unknown_type"


def test_words_that_a_file_names_are_passed_over() -> None:
    mapping = compiled(REPORTING + ACME).ignoring(frozenset({"DRUM"}))
    assert mapping is not None

    for word in ("BEAT", "DRUM"):
        assert outcome_of(mapping, {"kind": word}) is IGNORED
    assert outcome_of(compiled((REPORTING + ACME).replace("BEAT", "STATE")), BODY) is not IGNORED
    for no_word in (["BEAT"], {"BEAT": 1}):
        assert parked(mapping, {"kind": no_word, "rx": {"id": "7"}}).reason == "unknown_type"


def test_no_two_events_of_a_delivery_have_one_id_whatever_the_vendor_s_are() -> None:
    second = BATCH.partition("[[event]]")[2]
    with_id = BATCH.replace("[[event]]", 'id = "id"\n[[event]]', 1)
    mapping = compiled(f"{with_id}\n[[event]]{second}")
    ids = ("A", "A/1", "A/1/1", "A/1.2", "A")

    lines = [{"no": str(number), "state": "PACKED", "id": each} for number, each in enumerate(ids)]
    events = outcome_of(mapping, {"shop": "s", "lines": lines}).events

    assert len({event.id for event in events}) == len(events) == 10


def test_names_may_have_any_case() -> None:
    text = ACME.replace('prefix = "acme:"', 'prefix = "acme:"\nnames = "any_case"').replace("rx.id", "RX.Id")
    body = {"KIND": "STATE", "Rx": {"ID": "", "iD": "7"}, "STATE": "DONE", "Patient": {"SSN": "1", "Name": "x"}}

    outcome = outcome_of(compiled(text), body)

    assert outcome.events[0].key == "acme:7"
    assert outcome.events[0].value["extensions"] == {"/Rx/ID": '""', "/Patient": '{"Name":"x"}'}
    assert "name_ambiguous" in outcome.flags


@pytest.mark.parametrize(
    ("people", "kept"),
    [
        ({"Patient": {"SSN": "1", "ssn": "2", "name": "x"}}, {"/Patient": '{"name":"x"}'}),
        ({"Patient": {"SSN": "1"}, "patient": {"ssn": "2", "name": "x"}}, {"/patient": '{"name":"x"}'}),
        ({"patient": None, "PATIENT": {"ssn": "1", "Ssn": {"a": "2"}}}, {}),
        (
            {"Lines": [{"SSN": "1", "a": "b"}], "lines": [[], {"Ssn": "2", "ssn": "3"}]},
            {"/Lines": '[{"a":"b"}]', "/lines": "[[],null]"},
        ),
    ],
)
def test_what_is_dropped_is_kept_in_no_spelling(people: dict[str, Any], kept: dict[str, str]) -> None:
    text = ACME.replace('prefix = "acme:"', 'prefix = "acme:"\nnames = "any_case"')
    text = text.replace('drop = ["/patient/ssn"', 'drop = ["/lines/*/ssn", "/patient/ssn"')

    event = event_of(compiled(text), {"kind": "STATE", "rx": {"id": "7"}, "state": "DONE"} | people)

    assert event.value["extensions"] == kept


PATTERNS = {
    "patient_dob": ("patient_dob", "PatientDOB", "patient-dob", "primaryPatientDob"),
    "*social_security*": ("social_security", "SocialSecurityNo", "Social Security #"),
    "date-of-birth": ("DateOfBirth", "date_of_birth", "DATE OF BIRTH", "ownDateOfBirth"),
    "*insurance*": ("Insurance", "insurance_2", "PrimaryInsurance"),
    "ssn": ("SSN", "SpouseSsnLast4", "s.s.n."),
    "*[!aeiou]ssn*": ("PatientSSN", "patientssnlast4"),
    "a[_-]b[": ("a_b", "AB"),
    "birth?ay": ("BirthDay", "birth_day"),
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_and_names_are_compared_without_case_and_separators(pattern: str) -> None:
    text = ACME.replace('drop = ["/patient/ssn"]', f'drop_names = ["{pattern}"]')
    other = {"BusinessName": "kept", "birthdays": "kept", "date": "kept", "patient": "kept", "absent": "kept"}

    event = event_of(compiled(text), BODY | dict.fromkeys(PATTERNS[pattern], "secret") | other)

    assert event.value["extensions"].keys() == {f"/{name}" for name in other}  # type: ignore[attr-defined]


def test_a_table_may_park_with_its_reason_its_field_and_the_key_that_can_be_read() -> None:
    park = 'key = "rx.id"\npark = {reason = "unknown_type", field = "/state"}'
    mapping = compiled(f"{ACME}\n[[event]]\nwhen = \"state == 'OFF'\"\n{park}\n")

    assert parked(mapping, BODY | {"state": "OFF"}) == ParkReason("unknown_type", field="/state", key="acme:7")
    assert parked(mapping, {"kind": "X", "rx": {"id": " "}, "state": "OFF"}) == ParkReason(
        "unknown_type", field="/state"
    )
    assert event_of(mapping, BODY).key == "acme:7"
    conditional = compiled(ACME.replace("kind == 'STATE'", "more"))
    assert parked(conditional, BODY | {"more": {}}) == ParkReason("unknown_type")


BEST = """\
prefix = "acme:"
array = "best"
key = "no"
best = ["state != 'DEAD'", "instant(at)", "to_number(n)"]
drop = ["/ssn"]
[[event]]
type = "fulfillment.status_changed"
[event.data]
queue_id = "no"
fulfillment_status = "lower(state)"
"""


def test_lines_of_several_prescriptions_park_and_one_line_needs_no_choice() -> None:
    mapping, line = compiled(BEST), {"no": "7", "state": "PACKED", "ssn": "1"}

    assert event_of(mapping, [line]).value["extensions"] == event_of(mapping, line).value["extensions"] == {}
    best = event_of(mapping, [line | {"n": "1.25"}, line | {"n": "1.5", "state": "BILLING"}])
    assert best.value["fulfillment_status"] == "billing"
    assert outcome_of(mapping, [line]).flags == outcome_of(mapping, line).flags == ("time_of_receipt",)
    assert parked(mapping, [line, line | {"no": "8"}]) == ParkReason("unusable", "wrong_type", "/*/no")
    assert parked(mapping, []) == ParkReason("unusable", "no_key", "/*/no")


def test_a_body_may_be_an_array_where_the_file_says_so() -> None:
    text = BATCH.replace('each = "lines"', 'each = "@"').replace("/lines/*/no", "/*/no")
    text = text.replace('prefix = "acme:"', 'prefix = "acme:"\narrays = true\nbucket_s = 900')
    text = text.replace('account = "root.shop"\n', "")
    mapping = compiled(text)

    events = outcome_of(mapping, [{"no": "1", "state": "PACKED"}, None, {"no": "2", "state": "BILLING"}]).events

    assert [event.key for event in events] == ["acme:1", "acme:2"]
    assert (read_body(mapping, b"[]"), mapping.BUCKET_S, mapping.PREFIX) == ([], 900, "acme:")
    _, outcome = map_body(mapping, b'[{"no": "1", "state": "PACKED"}]', source="acme", received_at=RECEIVED_AT)
    assert isinstance(outcome, Mapped)


def test_a_fact_of_an_account_has_no_prescription() -> None:
    ping = 'prefix = "acme:"\n[[event]]\ntype = "system.ping"\nkey = "shop"\n[event.data]\nmessage = "say"\n'

    event = event_of(compiled(ping), {"shop": "s", "say": "hello"})

    assert (event.key, event.value["prescription_id"], event.value["message"]) == ("acme:s", None, "hello")
    assert_writable(event)


def test_a_delivery_that_exhausts_its_budget_parks() -> None:
    mapping = compiled(BATCH)
    lines = [{"no": str(number), "state": "PACKED"} for number in range(2000)]

    assert parked(mapping, {"shop": "s", "lines": lines}) == ParkReason("unusable", "out_of_range")
    assert isinstance(outcome_of(mapping, {"shop": "s", "lines": lines[:500]}), Mapped)


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
    (PREFIX, f"{PREFIX}\ndrop_names = ['*_*']", "drop_names.1: Value error, has neither a letter nor a digit"),
    (PREFIX, f"{PREFIX}\noption_tables = ['a']", "option_tables: there is no [tables.a]"),
    (PREFIX, "prefix = ", "invalid TOML: Invalid value (at line 1, column 10)"),
    ("America/New_York", "Mars/Olympus", "zone: no time zone is named 'Mars/Olympus'"),
    ('["/patient/ssn"]', '["patient.ssn"]', "drop.1: String should match pattern"),
    (WHEN, f"{WHEN}\nif = '1'", "event.1.if: Extra inputs are not permitted"),
    (WHEN, 'when = "kind = 1"', "event.1.when: invalid JMESPath from character 6"),
    (WHEN, f'when = "{"x" * 501}"', "event.1.when: longer than 500 characters"),
    (WHEN, f'when = "{"(" * 250}a{")" * 249}"', "event.1.when: invalid JMESPath"),
    (WHEN, "when = \"matches(kind, 'a*')\"", "event.1.when: unknown function 'matches'"),
    (WHEN, 'when = "lower(kind, state)"', "event.1.when: function 'lower' takes other arguments"),
    (WHEN, "when = \"day(kind, '%d', '%m')\"", "event.1.when: function 'day' takes other arguments"),
    (WHEN, "when = \"day(kind, '%Q')\"", "event.1.when: '%Q' is not a date format"),
    (WHEN, 'when = "day(kind, format)"', "event.1.when: 'None' is not a date format"),
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
        "event.1.park.detail: Value error, is not one of bad_id, bad_key,",
    ),
    (TYPE, 'park = {reason = "unusable"}', "event.1.park: Value error, unusable has a detail, and unknown_type none"),
    ("in_progress", "in_progres", "event.1.data.fulfillment_status: 'in_progres' is not a value of"),
    (
        DATA,
        f"{DATA}\nbilling_status = \"state && 'gratis' || note\"",
        "event.1.data.billing_status: 'gratis' is not a value",
    ),
    ('key = "rx.id"', "", "event.1.key: is missing"),
    ('key = "rx.id"', 'key = ["shop", "rx."]', "event.1.key: invalid JMESPath"),
    (DATA, "", "event.1.data: required field 'queue_id' of fulfillment.status_changed has no expression"),
    (
        ACME[ACME.index(DATA) :],
        '[[event]]\ntype = "prescription.updated"\nkey = "rx.id"\n',
        (
            "event.1.data: required fields 'fulfillment_status', 'queue_id' of fulfillment.status_changed have no "
            "expression; event.2.data: required field 'changed_fields' of prescription.updated has no expression"
        ),
    ),
    (DATA, f'{DATA}\nqueue_no = "rx.id"', "event.1.data.queue_no: unknown field of fulfillment.status_changed"),
    *(
        (DATA, f"{DATA}\n{name} = {value}", f"event.1.data.{name}: unknown field of fulfillment.status_changed")
        for name in ("raw_fulfillment_status", "patient.raw_sex", "prescription_id")
        for value in ("'word'", "'`\"x\"`'")
    ),
    (DATA, f'{DATA}\nlot_number.a = "rx.id"', "event.1.data.lot_number.a: unknown field"),
    (DATA, f'{DATA}\npatient.phone = "pt.phone"', "event.1.data: required field 'patient.last_name'"),
    (DATA, f"{DATA}\nactive = '`1`'", "event.1.data.active: the constant does not fit"),
    (DATA, "queue_id = '`null`'", "event.1.data.queue_id: the constant does not fit"),
    (DATA, f'{DATA}\n"a\\nb" = "7"', "event.1.data.a?b: unknown field"),
    (DATA, f"{DATA}\n{'a.' * 1500}b = 'x'", "event.1.data.a.a.a"),
    (DATA, f"{DATA}\nlot_number = '`\"\\ud800\"`'", "event.1.data.lot_number: a string with half of a surrogate pair"),
    (DATA, f"{DATA}\npatient_pay = '`1e400`'", "event.1.data.patient_pay: a number that is not finite"),
]


def complaint(text: str, options: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        compile_mapping(text.encode(), "acme.toml", ACCOUNT if options is None else options)
    return str(caught.value)


def test_a_word_of_a_named_table_is_looked_at_where_the_table_is_used() -> None:
    named = ACME.replace(PREFIX, f'{PREFIX}\ntables = {{ steps = {{ DONE = "packd", OFF = "UNKNOWN" }} }}')
    text = "".join([*named.splitlines(keepends=True)[:-1], "fulfillment_status = \"words(state, 'steps')\"\n"])

    let = text.replace("words(state, 'steps')", "let.step")
    let = let.replace(PREFIX, f"{PREFIX}\nlet = {{ step = \"lookup(state, 'steps')\" }}")

    for each in (text, let):
        assert complaint(each).startswith("acme.toml: event.1.data.fulfillment_status: 'packd' is not a value")
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
