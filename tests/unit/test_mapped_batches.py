"""Batches: each element is an event, `other.reported`, ignored, or the reason why its delivery is parked."""

import itertools
import json
from base64 import b64encode
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, quote_plus

import pytest

from bridge.event import Delivery, Event, Identity, ParkReason, identity_in
from bridge.kafka.record import event_record, identity_of
from bridge.mapping.mapped import MappingFile
from bridge.mapping.profile import IGNORED, read_body
from tests.profile_properties import assert_writable
from tests.unit.mapping_files import compiled
from tests.unit.profile_documents import a_delivery
from tests.unit.vendor_documents import event_of, outcome_of, parked

UPDATE = """\
type = "prescription.updated"
[event.data]
changed_fields = '`[]`'
"""
TABLE = f"""\
[[event]]
when = "type == 'P'"
{UPDATE}"""
HEAD = 'prefix = "arr:"\nkey = "rx"\neach = "events"\n'
REPORTED = 'reported = "type"\nignore = ["PING"]\n'
ANN = {"type": "P", "rx": "1", "patient": "Ann"}
BOB = {"type": "Q", "rx": "2", "patient": "Bob"}
PING = {"type": "PING", "at": "Cyd"}


def batch(*events: object, **around: object) -> dict[str, Any]:
    return {"events": list(events), **around}


def kept(event: Event) -> dict[str, Any]:
    extensions: Any = event.value["extensions"]
    return {pointer: json.loads(text) for pointer, text in extensions.items()}


def outlines(mapping: MappingFile, body: object) -> list[tuple[str, str, Any]]:
    return [(each.id, each.key, each.value.get("reported_type")) for each in outcome_of(mapping, body, id="d").events]


def test_an_element_that_no_table_is_about_is_reported_with_its_own_word_and_content() -> None:
    ann, bob = outcome_of(compiled(HEAD + REPORTED + TABLE), batch(ANN, BOB, sent="now"), id="d").events

    assert (ann.id, ann.key, kept(ann)) == ("d/1", "arr:1", {"/sent": "now", "/events/0/patient": "Ann"})
    assert (bob.id, bob.key, kept(bob)) == ("d/2", "arr:2", {"/sent": "now", "/events/1/patient": "Bob"})
    assert (bob.type, bob.value["reported_type"]) == ("other.reported", "Q")
    assert_writable(bob)
    without_table = compiled(HEAD + REPORTED)
    assert outlines(without_table, batch(ANN, BOB, PING)) == [("d/1", "arr:1", "P"), ("d/2", "arr:2", "Q")]


@pytest.mark.parametrize("each", ["events", "events[?type == 'P']", "events[*] | [?type == 'P']", "events[0]"])
def test_without_reported_an_element_without_an_event_parks_the_whole_delivery(each: str) -> None:
    mapping = compiled(HEAD.replace('"events"', f'"{each}"') + TABLE)

    assert parked(mapping, batch(ANN, BOB)) == ParkReason("unknown_type", field="/events/*")


@pytest.mark.parametrize("each", ["events[?type == 'P']", "*[] | [?type == 'P']", "values(@)[][] | [?type == 'P']"])
def test_what_a_filter_leaves_out_of_a_list_is_an_element_too(each: str) -> None:
    mapping = compiled(HEAD.replace('"events"', f'"{each}"') + REPORTED + TABLE)

    ann, bob = outcome_of(mapping, batch(BOB, ANN)).events[::-1]

    assert (ann.key, kept(ann)) == ("arr:1", {"/events/1/patient": "Ann"})
    assert (bob.key, kept(bob)) == ("arr:2", {"/events/0/patient": "Bob"})


def test_members_of_an_object_are_elements_whatever_their_names() -> None:
    mapping = compiled(HEAD.replace('"events"', "\"rxs.* | [?type == 'P']\"") + REPORTED + TABLE)

    events = outcome_of(mapping, {"rxs": {"a": ANN, "b/~1": BOB}, "by": "x"}).events

    assert [kept(each) for each in events] == [
        {"/by": "x", "/rxs/a/patient": "Ann"},
        {"/by": "x", "/rxs/b~1~01/patient": "Bob"},
    ]


def test_a_word_is_read_in_the_element_and_then_in_the_body() -> None:
    mapping = compiled(HEAD + REPORTED + TABLE)

    assert outlines(mapping, batch(BOB, {"rx": "3"}, {"type": "", "rx": "4"}, type="BATCH")) == [
        ("d/1", "arr:2", "Q"),
        ("d/2", "arr:3", "BATCH"),
        ("d/3", "arr:4", "BATCH"),
    ]
    assert parked(mapping, batch(ANN, {"rx": "3"}, {"rx": "4"})) == ParkReason(
        "unknown_type", "", "/events/*/type", "arr:3"
    )
    assert parked(mapping, batch({"type": "P"}, ANN | {"rx": "a b"})).detail == "no_key"
    by_table = compiled(HEAD + REPORTED + '[[event]]\ntype = "other.reported"\n')
    assert kept(event_of(by_table, batch({"rx": "3"}, type="BATCH"))) == {"/type": "BATCH"}
    for word in ("is eaten", False):
        malformed = batch(ANN, {"rx": "3", "type": word}, type="BATCH")
        assert parked(mapping, malformed) == ParkReason("unknown_type", field="/events/*/type", key="arr:3")


def test_a_reported_element_has_its_own_key_or_that_of_the_body_or_of_the_account() -> None:
    mapping = compiled(HEAD + REPORTED + TABLE)
    body = batch({"type": "Q"}, {"type": "R", "rx": "a b"})

    assert outlines(mapping, body | {"rx": "9"}) == [("d/1", "arr:9", "Q"), ("d/2", "acct_1", "R")]
    assert outlines(mapping, body) == [("d/1", "acct_1", "Q"), ("d/2", "acct_1", "R")]
    mapping = compiled(HEAD + 'account = "shop"\n' + REPORTED + TABLE, account_id="")
    assert outlines(mapping, batch(BOB | {"shop": "s"}, {"type": "Q"}, shop="t")) == [
        ("d/1", "arr:2", "Q"),
        ("d/2", "t", "Q"),
    ]
    assert parked(mapping, batch({"type": "Q"})) == ParkReason("unknown_type", field="/events/*/type")


def test_only_elements_whose_word_is_ignored_are_passed_over_and_kept_nowhere() -> None:
    mapping = compiled(HEAD + REPORTED + TABLE)

    (ann,) = outcome_of(mapping, batch(PING, ANN, type="PING"), id="d").events
    assert (ann.id, kept(ann)) == ("d/2", {"/type": "PING", "/events/1/patient": "Ann"})
    assert outcome_of(mapping, batch(PING, PING)) is IGNORED
    assert outcome_of(mapping, batch({"at": 1}, type="PING")) is IGNORED
    assert len(outcome_of(mapping, batch(PING, None, BOB)).events) == 1


@pytest.mark.parametrize("head", [HEAD, HEAD + REPORTED, HEAD + REPORTED.replace('"type"', '"root.type"')])
@pytest.mark.parametrize("each", ["events", "events[]", "events[?type == 'P']", "events[].lines", "[alerts, events][]"])
def test_a_batch_without_elements_is_ignored(head: str, each: str) -> None:
    mapping = compiled(head.replace('"events"', f'"{each}"') + TABLE)

    assert outcome_of(mapping, batch(shop="s_7", type=" ")) is IGNORED
    for body in (batch(None), {"events": None}, {"events": True}, {"a": batch()}):
        assert parked(mapping, body | {"shop": "s_7"}).reason in ("unknown_type", "unusable")


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (HEAD + REPORTED, batch(type="is closed")),
        (HEAD + REPORTED + TABLE.replace("[[event]]", '[[event]]\neach = "[@]"'), batch()),
        (f'names = "any_case"\n{HEAD}', {"events": [], "Events": [BOB]}),
        (f'array = "best"\nbest = ["n"]\n{HEAD}', [batch(rx="1", n=2), BOB | {"rx": "1"}]),
        (HEAD.replace('"events"', '"{a: events || `[]`}.a"'), {}),
        (HEAD + TABLE.replace("[[event]]", '[[event]]\neach = "orders[].lines"'), batch(orders=[{"lines": []}])),
    ],
)
def test_a_body_that_may_say_something_is_no_empty_batch(head: str, body: object) -> None:
    assert parked(compiled(head + TABLE.replace("[[event]]", '[[event]]\nname = "n"')), body).reason == "unknown_type"


def test_what_is_no_document_in_base64_stays_a_text() -> None:
    mapping = compiled(HEAD.replace('"events"', '"message.data.events"') + 'base64 = "/message/data"\n' + TABLE)
    document = b64encode(json.dumps(batch(ANN)).encode()).decode()
    assert event_of(mapping, {"message": {"data": document}}).key == "arr:1"
    for text in (b64encode(b"no json").decode(), f"!{document}", "", None):
        assert parked(mapping, {"message": {"data": text}}).reason == "unknown_type"
    assert parked(mapping, {"message": []}).reason == "unknown_type"
    whole = compiled(HEAD.replace('"events"', '"message.data"') + 'base64 = "/message/data"\n' + TABLE)
    assert event_of(whole, {"message": {"data": b64encode(json.dumps([ANN]).encode()).decode()}}).key == "arr:1"


FORM = HEAD.replace("events", "payload.events") + 'form = "payload"\ndrop = ["/token"]\n'


@pytest.mark.parametrize("encode", [quote, quote_plus, lambda text: text])
def test_the_json_in_a_field_of_a_form_is_read_in_its_place(encode: Callable[[str], str]) -> None:
    mapping = compiled(FORM + TABLE)
    payload = encode(json.dumps(batch(ANN | {"patient": "Ánn"})))

    event = event_of(mapping, f"token=t&payload={payload}&by=a+b%26&empty=\n".encode())

    assert event.key == "arr:1"
    assert kept(event) == {"/payload/events/0/patient": "Ánn", "/by": "a b&", "/empty": "\n"}
    assert mapping.CONTENT_TYPES == ("application/x-www-form-urlencoded",)
    whole = compiled(FORM.replace("payload.events", "payload") + "arrays = true\n" + TABLE)
    assert event_of(whole, f"payload={encode(json.dumps([ANN]))}".encode()).key == "arr:1"
    wrapped = compiled(FORM.replace("events", "data.events") + 'base64 = "/payload/data"\n' + TABLE)
    document = b64encode(json.dumps(batch(ANN)).encode()).decode()
    assert event_of(wrapped, f"payload={quote(json.dumps({'data': document}))}".encode()).key == "arr:1"


@pytest.mark.parametrize(
    ("body", "parks"),
    [
        (b"", ("malformed_form", "missing_field", "/payload")),
        (b"payload={}&a=1&%61=2", ("malformed_form", "duplicate_field")),
        (b"payload={}&a=%zz", ("malformed_form", "encoding")),
        (b'payload={"a":"%FF"}', ("malformed_form", "encoding")),
        (b'payload={"a":"\xff"}', ("malformed_form", "encoding")),
        (b'{"events":[]}', ("malformed_form", "syntax")),
        (b"payload={}&", ("malformed_form", "syntax")),
        (b"payload={}" + b"".join(b"&%d=" % number for number in range(100)), ("malformed_form", "syntax")),
        (b"payload=", ("malformed_json", "empty", "/payload")),
        (b"payload=%257B%257D", ("malformed_json", "syntax", "/payload")),
        (b'payload={"a":1,"a":1}', ("malformed_json", "duplicate_key", "/payload")),
    ],
)
def test_a_body_that_is_no_such_form_is_parked(body: bytes, parks: tuple[str, ...]) -> None:
    assert read_body(compiled(FORM + TABLE), body) == ParkReason(*parks)


def test_a_table_about_the_body_decides_for_no_element() -> None:
    ping = '[[event]]\neach = "[@]"\ntype = "system.ping"\nkey = "by"\n[event.data]\nmessage = "by"\n'
    mapping = compiled(HEAD + REPORTED + ping + TABLE)

    body, ann, bob = outcome_of(mapping, batch(ANN, BOB, by="x"), id="d").events

    assert (body.id, kept(body)) == ("d/system.ping", {})
    assert [kept(each) for each in (ann, bob)] == [{"/events/0/patient": "Ann"}, {"/events/1/patient": "Bob"}]
    assert parked(compiled(HEAD + ping + TABLE), batch(BOB, by="x")).field == "/events/*"


NESTED = 'prefix = "arr:"\nkey = "rx"\n[[event]]\neach = "orders[].lines"\n' + TABLE.removeprefix("[[event]]\n")
ORDERS = [
    {"name": "Ann", "lines": [{"type": "P", "rx": "1"}, {"type": "Q", "rx": "2", "for": "Bob"}]},
    {"name": "Cyd", "type": "R", "rx": "3", "lines": []},
]


@pytest.mark.parametrize("each", ['"orders[].lines"', '["orders", "lines"]', '"orders[*].lines"'])
def test_elements_of_nested_lists_and_orders_without_lines_are_decided(each: str) -> None:
    mapping = compiled(REPORTED + NESTED.replace('"orders[].lines"', each))

    events = outcome_of(mapping, {"orders": ORDERS}, id="d").events

    assert [(each.key, each.value.get("reported_type"), kept(each)) for each in events] == [
        ("arr:1", None, {"/orders/0/name": "Ann"}),
        ("arr:2", "Q", {"/orders/0/name": "Ann", "/orders/0/lines/1/for": "Bob"}),
        ("arr:3", "R", {"/orders/1/name": "Cyd", "/orders/1/lines": []}),
    ]
    assert [each.id for each in events] == ["d/1", "d/2", "d/0.2"]
    assert parked(compiled(NESTED), {"orders": ORDERS[1:]}).field == "/orders/*/lines"


def test_an_order_whose_lines_have_events_needs_none_of_its_own() -> None:
    cancel = f'[[event]]\neach = "orders"\nname = "whole"\nwhen = "type == \'R\'"\n{UPDATE}'
    mapping = compiled(NESTED + cancel)
    line = {"name": "Ann", "lines": ORDERS[0]["lines"][:1]}  # type: ignore[index]

    assert outlines(mapping, {"orders": [line, ORDERS[1]]}) == [("d/1", "arr:1", None), ("d/2.whole", "arr:3", None)]


def test_an_object_instead_of_a_list_is_a_list_of_one() -> None:
    mapping = compiled(HEAD + REPORTED + TABLE)

    assert outlines(mapping, {"events": ANN, "by": "x"}) == [("d/1", "arr:1", None)]
    assert kept(event_of(mapping, {"events": BOB, "by": "x"})) == {"/by": "x", "/events/patient": "Bob"}
    nested = compiled(REPORTED + NESTED)
    assert outlines(nested, {"orders": {"lines": {"type": "P", "rx": "1"}}}) == [("d/1", "arr:1", None)]
    top = compiled(HEAD.replace('"events"', '"@"') + "arrays = true\n" + REPORTED + TABLE)
    assert outlines(top, ANN) == outlines(top, [ANN]) == [("d/1", "arr:1", None)]


@pytest.mark.parametrize("each", ["rxs", "rxs[*]", "rxs[]", "rxs[?@ != 'x']"])
def test_texts_and_numbers_are_elements_with_content_of_their_own(each: str) -> None:
    mapping = compiled(f'prefix = "arr:"\nkey = "@"\n[[event]]\neach = "{each}"\n{UPDATE}')

    events = outcome_of(mapping, {"rxs": ["1", 2, "1"], "by": "x"}).events

    assert [each.key for each in events] == ["arr:1", "arr:2", "arr:1"]
    assert [kept(each) for each in events] == [
        {"/by": "x"} | each for each in ({"/rxs/0": "1"}, {"/rxs/1": 2}, {"/rxs/2": "1"})
    ]


def test_one_text_instead_of_a_list_is_a_list_of_one() -> None:
    """As XML has it, which has no lists."""
    mapping = compiled(f'prefix = "arr:"\nkey = "@"\n[[event]]\neach = "a.rx"\n{UPDATE}')

    event = event_of(mapping, {"a": {"rx": "7"}, "by": "x"})

    assert (event.key, kept(event)) == ("arr:7", {"/by": "x", "/a/rx": "7"})


def test_what_an_expression_makes_of_a_body_is_no_element() -> None:
    mapping = compiled(HEAD.replace('"events"', '"events[].{rx: rx, type: type}"') + REPORTED + TABLE)

    assert parked(mapping, batch(ANN)) == ParkReason("unusable", "wrong_type", "/events/*")


def test_two_spellings_of_a_list_park_rather_than_show_one_s_content_to_the_other() -> None:
    mapping = compiled('names = "any_case"\n' + HEAD + REPORTED + TABLE)

    assert parked(mapping, {"events": [ANN], "Events": [BOB]}) == ParkReason("unusable", "wrong_type", "/events/*")
    assert len(outcome_of(mapping, {"Events": [ANN], "Note": 1, "note": 2}).events) == 1


def test_elements_behind_too_many_others_park() -> None:
    mapping, deep = (compiled(HEAD.replace("events", each) + REPORTED + TABLE) for each in ("events", "a.events"))
    body = batch(ANN, BOB)

    ann, bob = outcome_of(mapping, {"junk": [{}] * 20_000} | body).events
    assert ("Ann" in str(bob.value), "Bob" in str(ann.value)) == (False, False)
    assert parked(deep, {"junk": [{}] * 20_000, "a": body}) == ParkReason("unusable", "out_of_range")


def test_a_name_of_one_element_is_not_read_for_another_that_is_equal() -> None:
    text = 'prefix = "arr:"\nkey = "@"\n[let]\nof = "parent.name"\n[[event]]\neach = "orders[].rxs"\n'
    mapping = compiled(text + UPDATE + 'reason = "let.of"\n')

    events = outcome_of(mapping, {"orders": [{"name": "Ann", "rxs": [1]}, {"name": "Bob", "rxs": [1]}]}).events

    assert [each.value["reason"] for each in events] == ["Ann", "Bob"]


def test_events_stand_in_the_order_of_the_body() -> None:
    mapping = compiled(HEAD + REPORTED + TABLE + TABLE.replace("'P'", "'S'"))
    body = batch(BOB, ANN | {"type": "S"}, BOB, ANN)

    assert [each.key for each in outcome_of(mapping, body).events] == ["arr:2", "arr:1", "arr:2", "arr:1"]


WITH_ID = HEAD + 'id = "no"\n' + REPORTED + TABLE
FACTS = [{"no": f"f{number}", "type": "P", "rx": str(number % 3), "n": number} for number in range(10)]


def identities(mapping: MappingFile, body: object) -> dict[str, Identity]:
    """Give the identities of a body's events, the same as in their records, by event id."""
    delivery = a_delivery(json.dumps(body).encode(), id="d")
    found = {}
    for event in outcome_of(mapping, body, id="d").events:
        found[event.id] = identity_in(delivery, event)
        assert identity_of(a_record(event, delivery)) == found[event.id]
    return found


def a_record(event: Event, delivery: Delivery) -> Any:
    return event_record(event, delivery, topic="t", partition=0, value=b"", schema="s", ordinal=b"i:1").headers


def test_an_id_in_the_element_makes_one_event_of_a_fact_in_any_batch() -> None:
    mapping = compiled(WITH_ID)
    nine = identities(mapping, batch(*FACTS[:9]))
    ten = identities(mapping, batch(*FACTS[::-1], sent="later"))
    turned = [dict(reversed(each.items())) for each in FACTS]

    assert list(nine) == [f"f{number}/prescription.updated" for number in range(9)]
    assert {name: ten[name] for name in nine} == nine
    assert identities(mapping, batch(*turned)) == ten
    for fact, alone in itertools.product(FACTS, (batch, lambda fact: {"events": fact})):
        ((name, identity),) = identities(mapping, alone(fact)).items()
        assert ten[name] == identity


def test_another_content_under_an_id_is_another_fact_and_the_same_twice_is_one() -> None:
    mapping = compiled(WITH_ID)
    first, other = FACTS[0], FACTS[0] | {"n": "x"}

    assert identities(mapping, batch(first)).values() != identities(mapping, batch(other)).values()
    assert len(outcome_of(mapping, batch(first, FACTS[1], first)).events) == 2
    assert list(identities(mapping, batch(first, other))) == ["f0/prescription.updated", "f0/prescription.updated.2"]


def test_equal_elements_of_two_prescriptions_are_two_events() -> None:
    mapping = compiled(WITH_ID.replace('"rx"', '"parent.rx"').replace('"events"', '"events[].fills"'))
    ann, bob = ({"rx": rx, "fills": [{"no": "1", "type": "P"}]} for rx in "12")

    events = outcome_of(mapping, batch(ann, bob)).events

    assert [(each.id[:1], each.key) for each in events] == [("1", "arr:1"), ("1", "arr:2")]
    assert identities(mapping, batch(ann)).values() != identities(mapping, batch(bob)).values()


def test_equal_elements_that_are_reported_by_two_words_are_two_events() -> None:
    mapping = compiled(WITH_ID.replace('"type"', '"root.word"'))
    shipped, returned = (identities(mapping, batch(BOB | {"no": "1"}, word=word)) for word in ("shipped", "returned"))

    assert shipped.keys() == returned.keys()
    assert shipped != returned


@pytest.mark.parametrize("expression", ["root.no", "parent.no", "'x'"])
def test_an_id_of_what_is_around_an_element_needs_its_position(expression: str) -> None:
    mapping = compiled(WITH_ID.replace('"no"', f'"{expression}"'))

    events = outcome_of(mapping, batch(ANN, BOB, no="x")).events

    assert [(each.id, each.sha256) for each in events] == [("x/1", ""), ("x/2", "")]


def test_numbers_count_as_they_are_written_in_the_hash_of_an_element() -> None:
    mapping = compiled(WITH_ID)
    hashes = [
        event_of(mapping, f'{{"events":[{{"no":1,"type":"P","rx":1,"n":{n}}}]}}'.encode()).sha256
        for n in ("1.0", "1.00")
    ]

    assert len(set(hashes)) == 2


def test_a_filter_that_leaves_all_out_or_fails_hides_nobody() -> None:
    mapping = compiled(HEAD.replace('"events"', "\"events[?type == 'P' && trim(rx)]\"") + REPORTED + TABLE)

    assert outlines(mapping, batch(BOB, BOB | {"rx": "3"})) == [("d/0.1", "arr:2", "Q"), ("d/0.2", "arr:3", "Q")]
    assert parked(mapping, batch(BOB, ANN | {"rx": {}})) == ParkReason("unusable", "wrong_type", "/events")
