"""Each event becomes the message that an interface analyst would expect, or none."""

import os
import re
import warnings
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from bridge.event import Event
from bridge.mapping.profile import Mapped
from consumers.hl7v2.mapping import Message, event_part, message, news, note_hl7
from consumers.hl7v2.options import Hl7Options
from consumers.lifecycle.facts import Document, stamp_of
from consumers.testing import an_event
from tests.incomplete import incomplete_events, whole_events
from tests.prescriptions import SCENARIOS, scenario
from tests.unit.profile_documents import SAMPLES, map_body

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from hl7apy.consts import VALIDATION_LEVEL
    from hl7apy.parser import parse_message

GOLDEN = Path(__file__).parents[1] / "data" / "hl7v2"
# Set to write them anew; the difference is then reviewed like any other.
REWRITE = "HL7V2_GOLDEN"
NATIVE = sorted(path.stem for path in SAMPLES.glob("native/*.json"))
PLAIN = Hl7Options(host="his.example", port=2575)
TOLD_ALL = PLAIN.model_copy(update={"drafts": True, "shipments": True, "assigner": "CLINIC"})
SILENT = {"epcs.signed", "alert.raised", "other.reported", "prescriber.enrollment_changed", "system.ping"}
# HL7 2.5.1, table 0119, order control codes, and table 0038, order status.
TABLE_0119 = frozenset(
    re.findall(
        "..", "AFCACHCNCRDCDEDFDRFUHDHRLIMCNANWOCODOEOFOHOKOPORPAPRPYRERFRLRORPRQRRRURUSCSNSRSSUAUCUDUFUHUMUNURUXXOXRXX"
    )
)
TABLE_0038 = frozenset({"A", "CA", "CM", "DC", "ER", "HD", "IP", "RP", "SC"})


def told(events: list[Event], options: Hl7Options = TOLD_ALL) -> Iterator[tuple[Event, Message | None]]:
    """Give the message of each event of one prescription, in their order."""
    document: Document = {}
    ordered = False
    for event in events:
        note_hl7(document, event, stamp_of(event))
        said = news(event, document, options, ordered=ordered)
        ordered = ordered or (said is not None and said.ordered)
        yield event, None if said is None else message(event, said, document, options)


def one(*events: Event, options: Hl7Options = TOLD_ALL) -> dict[str, list[str]]:
    """Return the fields of the last event's message by segment, the first of each name; field N at index N."""
    *_, (_, made) = told(list(events), options)
    return {} if made is None else segments(made)


def segments(made: Message) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in made.text.split("\r")[:-1]:
        fields = line.split("|")
        found.setdefault(fields[0], ["MSH", "|", *fields[1:]] if fields[0] == "MSH" else fields)
    return found


def sample(name: str) -> Event:
    outcome = map_body((SAMPLES / "native" / f"{name}.json").read_bytes())
    assert isinstance(outcome, Mapped)
    return outcome.events[0]


def demand_valid(made: Message) -> None:
    """Validate it with hl7apy, which requires the quantity of a fill even if it is unknown."""
    text = re.sub(r"(RXD\|[^|]*\|[^|]*\|[^|]*)\|\|", r"\1|0|", made.text)
    parse_message(text, validation_level=VALIDATION_LEVEL.STRICT, find_groups=True).validate()


@pytest.mark.parametrize("name", [*NATIVE, "whole"])
def test_a_sample_is_the_message_that_was_read_and_approved(name: str) -> None:
    """The last has all messages of a prescription whose events have every field."""
    events = whole_events() if name == "whole" else [sample(name)]
    golden = GOLDEN / f"{name}.hl7"
    text = "".join(made.text.replace("\r", "\n") for _, made in told([*events]) if made is not None)
    if os.environ.get(REWRITE):
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(text)

    assert text == golden.read_text(), f"another message than {golden}; with {REWRITE}=1 in the environment it is kept"


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_scenario_is_valid_message_by_message(name: str) -> None:
    events, _ = scenario(name)
    sent = [(event, made) for event, made in told(events) if made is not None]

    assert sent
    for event, made in sent:
        demand_valid(made)
        found = segments(made)
        assert found["ORC"][1] in TABLE_0119
        assert (found["ORC"] + [""] * 6)[5] in {"", *TABLE_0038}
        assert found["ORC"][2].split("^")[0] == (event.value["prescription_id"] or "")


@pytest.mark.parametrize(
    ("event_type", "said", "control", "status"),
    [
        ("prescription.transmission_failed", {"retryable": True}, "SC", "HD"),
        ("prescription.transmission_failed", {"retryable": False}, "SC", "ER"),
        ("epcs.signing_failed", {"failure": "locked_out"}, "SC", "HD"),
        ("renewal.responded", {"decision": "approved"}, "AF", ""),
        ("renewal.responded", {"decision": "approved_with_changes"}, "AF", ""),
        ("renewal.responded", {"decision": "denied"}, "DF", ""),
        ("renewal.responded", {"decision": "denied_new_rx_to_follow"}, "DF", ""),
        ("renewal.responded", {"decision": "replace"}, "RP", ""),
        ("renewal.responded", {"decision": "pending"}, "SC", "HD"),
        ("renewal.closed", {"reason": "expired"}, "UF", ""),
        ("change.responded", {"decision": "approved"}, "XR", ""),
        ("change.responded", {"decision": "denied"}, "UX", ""),
        ("change.responded", {"decision": "pending"}, "SC", "HD"),
        ("change.responded", {"decision": "validated"}, "SC", ""),
        ("cancel.requested", {"scope": "remaining_refills"}, "DC", ""),
        ("fill.status_changed", {"fill_status": "dispensed"}, "RE", "CM"),
        ("fill.status_changed", {"fill_status": "partially_dispensed"}, "RE", "A"),
        ("fill.status_changed", {"fill_status": "not_dispensed"}, "SC", "CA"),
        ("fill.status_changed", {"fill_status": "transferred"}, "SC", "DC"),
        ("fulfillment.status_changed", {"fulfillment_status": "packed"}, "SC", "IP"),
        ("fulfillment.status_changed", {"fulfillment_status": "on_hold"}, "OH", "HD"),
        ("fulfillment.status_changed", {"fulfillment_status": "rejected", "active": False}, "OC", "CA"),
        ("fulfillment.status_changed", {"fulfillment_status": "delivered"}, "SC", "CM"),
        ("shipment.status_changed", {"shipment_status": "in_transit"}, "SC", "IP"),
        ("shipment.status_changed", {"shipment_status": "delivered"}, "SC", "CM"),
    ],
)
def test_a_type_and_its_word_have_a_control_code_and_a_status(
    event_type: str, said: dict[str, Any], control: str, status: str
) -> None:
    orc = [*one(an_event(event_type, **said))["ORC"], "", "", "", ""]

    assert (orc[1], orc[5]) == (control, status)
    assert control in TABLE_0119
    assert status in {"", *TABLE_0038}


def test_records_that_hold_only_names_make_valid_messages() -> None:
    # A cancelled order has fewer messages.
    events = sorted(incomplete_events(), key=lambda event: event.type == "cancel.responded")
    messages = [made for _, made in told(events) if made is not None]

    assert len(messages) == len([event for event in events if event.type not in SILENT])
    for made in messages:
        # The standard's own checker requires a number of the patient, which the contract does not.
        demand_valid(made._replace(text=made.text.replace('PID|1||""', "PID|1||1")))
        assert "Quintero" in made.text
    assert any("lisinopril 10 mg" in made.text for made in messages)


@pytest.mark.parametrize(
    ("event_type", "field"),
    [
        ("renewal.responded", "decision"),
        ("renewal.closed", "reason"),
        ("change.requested", "change_code"),
        ("change.responded", "decision"),
        ("cancel.requested", "scope"),
        ("cancel.responded", "decision"),
        ("fill.status_changed", "fill_status"),
        ("fulfillment.status_changed", "fulfillment_status"),
        ("shipment.status_changed", "shipment_status"),
        ("epcs.signing_failed", "failure"),
    ],
)
def test_a_word_that_nobody_knows_says_nothing(event_type: str, field: str) -> None:
    words: dict[str, Any] = {field: "UNKNOWN", f"raw_{field}": "dispensed"}
    assert one(an_event(event_type, **words)) == {}


def test_an_order_is_new_once() -> None:
    first, again = an_event("prescription.sent", id="evt_1"), an_event("prescription.sent", id="evt_2")
    filled, draft = an_event("fill.status_changed", fill_status="dispensed"), an_event("prescription.created")

    for events in ([filled, first, again, draft], [filled, draft, first]):
        assert [segments(made)["ORC"][1] for _, made in told(events) if made] == ["RE", "NW", "XX"]


@pytest.mark.parametrize("event_type", ["prescription.created", "shipment.status_changed"])
def test_drafts_and_shipments_are_sent_only_if_asked_for(event_type: str) -> None:
    assert one(an_event(event_type), options=PLAIN) == {}


THIRTY: dict[str, Any] = {"description": "q", "quantity": Decimal(30), "quantity_unit": "EA"}
DAY = date(2026, 1, 2)


@pytest.mark.parametrize(
    ("event", "segment", "fields"),
    [
        (an_event("prescription.sent", medication=THIRTY), "RXO", {11: "30", 12: "^EA"}),
        (an_event("prescription.sent", medication=THIRTY | {"quantity": None}), "RXO", {11: "", 12: ""}),
        (an_event("fulfillment.status_changed", rx_reference_number="441"), "ORC", {2: "rx_1^S", 3: "441"}),
        (
            an_event("fill.status_changed", quantity_dispensed=Decimal(30), fill_date=DAY),
            "RXD",
            {3: "20260102", 4: "30"},
        ),
        (an_event("fill.status_changed", medication_dispensed=THIRTY, note="late"), "RXD", {2: "^q", 5: "", 9: "late"}),
        (an_event("prescription.sent", patient={"last_name": "Q", "email": "q@x"}), "PID", {13: "^NET^Internet^q@x"}),
        (
            an_event("prescription.sent", environment="production"),
            "MSH",
            {4: "A", 5: "B", 6: "C", 11: "P", 15: "AL", 16: "NE"},
        ),
    ],
)
def test_a_field_has_the_value_of_the_event_or_setting(event: Event, segment: str, fields: dict[int, str]) -> None:
    names = {
        "sending_app": "S",
        "sending_facility": "A",
        "receiving_app": "B",
        "receiving_facility": "C",
        "ack_mode": "enhanced",
    }
    found = [*one(event, options=PLAIN.model_copy(update=names))[segment], *[""] * 20]

    assert {number: found[number] for number in fields} == fields


@pytest.mark.parametrize(
    ("scope", "answers"),
    [
        ("all", {"approved": ("CR", "CA"), "denied": ("UC", ""), "no_response": ("UC", "")}),
        ("remaining_refills", {"approved": ("DR", "DC"), "denied": ("UD", ""), "no_response": ("UD", "")}),
        # Asked of another, or not heard of: nothing is said of the order as a whole.
        (None, {"approved": ("CR", ""), "denied": ("UC", ""), "no_response": ("UC", "")}),
        ("UNKNOWN", {"approved": ("CR", ""), "denied": ("UC", ""), "no_response": ("UC", "")}),
    ],
)
def test_an_answer_says_as_much_as_was_asked(scope: str | None, answers: dict[str, tuple[str, str]]) -> None:
    asked = an_event("cancel.requested", request_id="c_1" if scope else "c_2", scope=scope or "remaining_refills")
    for decision, said in answers.items():
        orc = [*one(asked, an_event("cancel.responded", request_id="c_1", decision=decision))["ORC"], *[""] * 4]

        assert (orc[1], orc[5]) == said


def test_what_was_dispensed_and_approved_is_never_taken_from_the_order() -> None:
    whole = sample("01_prescription_created")
    filled = one(whole, an_event("fill.status_changed", fill_status="dispensed", fill_number=0))["RXD"]
    approved = one(whole, an_event("renewal.responded", decision="approved"))["RXO"]
    asked = one(whole, an_event("renewal.requested", matched=True))["RXO"]
    others = [{"description": each} for each in ("first", "second")]
    ((_, made),) = told([an_event("change.requested", medications_requested=others)])

    assert made is not None
    assert re.findall(r"RXO\|\^([a-z]+)", made.text) == ["first", "second"]
    assert filled[1:3] == ["1", "^Unknown"]
    assert [*approved, *[""] * 4][13] == [*asked, *[""] * 4][13] == ""


@pytest.mark.parametrize("nothing", ["", "  ", '""', "\x00\r\n"])
def test_a_required_field_is_never_empty(nothing: str) -> None:
    medication = {"description": nothing}
    ordered = one(an_event("prescription.sent", medication=medication))
    filled = one(an_event("fill.status_changed", rx_reference_number=nothing, medication_dispensed=medication))

    assert (ordered["RXO"][1], filled["RXD"][2], filled["RXD"][7]) == ("^Unknown", "^Unknown", '""')


@pytest.mark.parametrize("event_type", ["renewal.requested", "change.requested"])
@pytest.mark.parametrize(("rx", "matched"), [(None, True), (None, False), ("rx_1", False)])
def test_a_request_that_fits_no_prescription_has_only_its_own_number(
    event_type: str, rx: Any, *, matched: bool
) -> None:
    said = {"prescription_id": rx, "request_id": "r_1", "matched": matched}
    found = one(an_event(event_type, key="req:r_1", rx_reference_number="441", **said))

    assert (found["ORC"][2:4], found["PID"][3]) == ([f"{rx}^DRX" if rx else "", "r_1"], "req:r_1^^^DRX^AN")


@pytest.mark.parametrize(
    ("moment", "zone", "expected"),
    [
        (datetime(2026, 3, 8, 7, 59, 59, tzinfo=UTC), "America/Chicago", "20260308015959-0600"),
        (datetime(2026, 3, 8, 8, tzinfo=UTC), "America/Chicago", "20260308030000-0500"),
        (datetime(1, 1, 1, tzinfo=UTC), "UTC", "00010101000000+0000"),
        (datetime(1, 1, 1, tzinfo=UTC), "America/Chicago", "00010101000000+0000"),
        (datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC), "Asia/Tokyo", "99991231235959+0000"),
        (datetime(1800, 1, 1, tzinfo=UTC), "America/Chicago", "18000101000000+0000"),
        (datetime(1960, 1, 1, tzinfo=UTC), "Africa/Monrovia", "19600101000000+0000"),
    ],
)
def test_every_time_of_the_contract_has_a_place_in_a_message(moment: datetime, zone: str, expected: str) -> None:
    """Senders without a time write the year 1; at the ends of the calendar a zone may have no year for it."""
    event = an_event("prescription.sent")._replace(occurred_at=moment, received_at=moment)
    written = one(event, options=PLAIN.model_copy(update={"timezone": zone}))

    assert (written["MSH"][7], written["ORC"][9]) == (expected, expected)


def test_old_receivers_get_the_same_segments_as_another_message_that_has_no_place_for_a_route() -> None:
    event = sample("03_prescription_sent")
    old_engine = TOLD_ALL.model_copy(update={"orders": "orm"})
    new, old = one(event), one(event, options=old_engine)

    assert one(an_event("fill.status_changed", fill_status="dispensed"), options=old_engine)["MSH"][9][:3] == "RDS"
    assert old.pop("MSH")[9] == "ORM^O01^ORM_O01"
    assert new.pop("MSH")[9] == "OMP^O09^OMP_O09"
    assert new.pop("RXR") == ["RXR", "^See sig"]
    assert old == new


def test_a_fill_has_the_day_of_its_event_if_no_other_is_told_and_deletes_no_quantity() -> None:
    """Null would delete it; it is not a value of its type either."""
    late = datetime(2026, 9, 15, 3, tzinfo=UTC)
    event = an_event("fill.status_changed", fill_number=0, at=late)._replace(received_at=late + timedelta(days=1))
    filled = one(event, options=PLAIN.model_copy(update={"timezone": "America/Chicago"}))["RXD"]

    assert filled[3:5] == ["20260914", ""]


@pytest.mark.parametrize("word", ["not_dispensed", "transferred"])
def test_a_fill_of_which_nothing_was_dispensed_is_news_of_the_order(word: str) -> None:
    found = one(an_event("fill.status_changed", fill_status=word, fill_number=0, note="Returned to stock"))

    assert found["MSH"][9] == "OMP^O09^OMP_O09"
    assert (found["NTE"][3], "RXD" in found) == (f"Fill: {word}", False)


CANCELLED = [
    an_event("cancel.requested", request_id="c", scope="all"),
    an_event("cancel.responded", request_id="c", decision="approved"),
]


@pytest.mark.parametrize(
    "late",
    [
        *("prescription.created", "prescription.updated", "prescription.sent", "prescription.processed"),
        *("prescription.transmission_failed", "epcs.signing_failed"),
    ],
)
def test_what_comes_late_of_a_cancelled_order_is_not_sent(late: str) -> None:
    assert one(*CANCELLED, an_event(late)) == {}
    assert one(an_event("prescription.sent"), *CANCELLED, an_event(late)) == {}
    assert one(CANCELLED[1], an_event(late)) == {}


@pytest.mark.parametrize(
    ("event_type", "said", "control"),
    [
        ("fulfillment.status_changed", {"fulfillment_status": "packed"}, "SC"),
        ("fulfillment.status_changed", {"fulfillment_status": "on_hold"}, "SC"),
        ("fulfillment.status_changed", {"fulfillment_status": "delivered"}, "SC"),
        ("fill.status_changed", {"fill_status": "transferred"}, "SC"),
        ("shipment.status_changed", {"shipment_status": "in_transit"}, "SC"),
        ("renewal.responded", {"decision": "pending"}, "SC"),
        ("renewal.responded", {"decision": "approved"}, "AF"),
        ("renewal.requested", {}, "RF"),
    ],
)
def test_a_cancelled_order_stays_so(event_type: str, said: dict[str, Any], control: str) -> None:
    event = an_event(event_type, **said)
    for scope, status in (("all", "CA"), ("remaining_refills", "DC"), (None, "")):
        asked = [] if scope is None else [an_event("cancel.requested", request_id="c", scope=scope)]
        orc = [*one(*asked, CANCELLED[1], event)["ORC"], *[""] * 4]
        assert (orc[1], orc[5]) == (control, status)
    refills = an_event("cancel.requested", request_id="d", scope="remaining_refills")
    approved = an_event("cancel.responded", request_id="d", decision="approved")
    assert one(*CANCELLED, refills, approved, event)["ORC"][5] == "CA"


def test_a_fill_after_a_cancellation_and_what_follows_a_revoked_one_are_sent() -> None:
    filled = one(*CANCELLED, an_event("fill.status_changed", fill_status="dispensed"))
    later = CANCELLED[1].occurred_at + timedelta(minutes=1)
    revoked = an_event("cancel.responded", request_id="c", decision="denied", at=later)
    processed = one(*CANCELLED, revoked, an_event("prescription.processed"))
    unknown = an_event("cancel.responded", request_id="c", decision="UNKNOWN", raw_decision="?", at=later)

    assert (filled["MSH"][9], filled["ORC"][5]) == ("RDS^O13^RDS_O13", "CM")
    assert processed["ORC"][5] == "SC"
    assert one(*CANCELLED, unknown, an_event("prescription.processed")) == {}


def test_fills_with_ids_are_told_apart_and_counted_where_they_have_no_number() -> None:
    """As they are first heard of; a correction has the count of its fill, and a number counts by itself."""

    def filled(fill_id: str, word: str, number: int = 0) -> Event:
        fields: dict[str, Any] = {"fill_id": fill_id, "fill_number": number, "fill_status": word}
        return an_event("fill.status_changed", rx_reference_number="77", **fields)

    words = [("a", "partially_dispensed"), ("b", "not_dispensed"), ("c", "dispensed"), ("a", "dispensed")]
    sent = told([*(filled(*each) for each in words), filled("d", "dispensed", 7)])
    made = [segments(each) for _, each in sent if each is not None]

    assert [each["ORC"][3] for each in made] == ["a", "b", "c", "a", "d"]
    assert [each["RXD"][1] for each in made if "RXD" in each] == ["1", "3", "1", "8"]
    assert {each["RXD"][7] for each in made if "RXD" in each} == {"77"}


def test_a_control_id_fits_its_field_and_tells_source_and_event() -> None:
    base = an_event("prescription.sent", id="evt_1")
    other = base._replace(source="another")
    again = an_event("prescription.sent", id="evt_2")
    full = PLAIN.model_copy(update={"control_id": "full"})

    assert len({event_part(each) for each in (base, other, again)}) == 3
    assert re.fullmatch(f"{event_part(base)}[A-Z2-7]{{8}}", one(base)["MSH"][10])
    assert re.fullmatch("evt_1-[A-Z2-7]{8}", one(base, options=full)["MSH"][10])
    for hostile in ("a|b", "a^b", "a b", "é", "x" * 191, "a\x00"):
        event = an_event("prescription.sent", id=hostile)
        assert one(event, options=full)["MSH"][10].startswith(event_part(event))


def test_a_control_id_is_another_one_when_the_message_is() -> None:
    """A restore of the database takes facts away: what corrects a message made without them must not look repeated."""
    event = an_event("prescription.processed", key="rx_1", id="evt_1")
    before, after = (
        an_event("prescription.sent", key="rx_1", medication={"description": words})
        for words in ("lisinopril 10 mg", "lisinopril 40 mg")
    )

    ids = [one(known, event)["MSH"][10] for known in (before, after, before)]

    assert ids[0] == ids[2] != ids[1]
