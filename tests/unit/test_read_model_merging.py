"""Any order, any repetition, any batch split of the same events: the same document, byte for byte."""

from datetime import date
from typing import Any, get_args

from hypothesis import given
from hypothesis import strategies as st

from bridge.contract.events import EVENT_MODELS
from bridge.event import Event
from tests.prescriptions import a_fact, document_bytes

TYPES = sorted(kind for kind in EVENT_MODELS if kind not in {"prescriber.enrollment_changed", "system.ping"})


def words(event_type: str, field: str) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(EVENT_MODELS[event_type].model_fields[field].annotation))


IDS = st.sampled_from(["a", "b", "c"])
MAYBE = st.one_of(st.none(), IDS)
PATIENT = st.fixed_dictionaries(
    {"first_name": IDS, "last_name": IDS, "date_of_birth": st.dates(date(1950, 1, 1), date(1950, 1, 9))}
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "message_id": MAYBE,
    "relates_to_message_id": MAYBE,
    "replacement_prescription_id": MAYBE,
    "prescriber_order_number": MAYBE,
    "patient": st.one_of(st.none(), PATIENT),
    "request_id": IDS,
    "queue_id": IDS,
    "tracking_number": IDS,
    "retryable": st.booleans(),
    "active": st.one_of(st.none(), st.booleans()),
    "fill_number": st.integers(0, 2),
}
WORDS = ("decision", "reason", "fill_status", "fulfillment_status", "shipment_status")


@st.composite
def facts(draw: st.DrawFn, identity: int) -> Event:
    """One event of a type that says something of a prescription; times collide often, ids never do."""
    kind = draw(st.sampled_from(TYPES))
    fields = {name: draw(said) for name, said in FIELDS.items() if name in EVENT_MODELS[kind].model_fields}
    for name in WORDS:
        if name in EVENT_MODELS[kind].model_fields and kind.partition(".")[2] != "requested":
            fields[name] = draw(words(kind, name)) if name != "reason" or kind == "renewal.closed" else None
    sequence = draw(st.one_of(st.none(), st.integers(1, 3)))
    source = draw(st.sampled_from(["drx", "other"]))
    return a_fact(kind, draw(st.integers(0, 6)), id=f"evt_{identity}", source=source, sequence=sequence, **fields)


HISTORIES = st.integers(0, 14).flatmap(lambda count: st.tuples(*(facts(identity) for identity in range(count))))


@given(events=HISTORIES, draws=st.data())
def test_order_and_repetition_leave_no_trace(events: tuple[Event, ...], draws: st.DataObject) -> None:
    shuffled = draws.draw(st.permutations([*events, *events]))

    assert document_bytes(shuffled) == document_bytes(events)
