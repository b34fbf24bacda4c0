"""The senders of `dev` push what their profiles read."""

import itertools

import pytest

from bridge.dev.sources import SOURCES
from bridge.dev.traffic import deliveries
from bridge.event import ParkReason
from bridge.mapping.lookup import load_profile
from tests.profile_properties import assert_writable
from tests.unit.vendor_documents import push


@pytest.mark.parametrize("name", SOURCES)
def test_a_vendor_s_story_becomes_events(name: str) -> None:
    source = SOURCES[name]
    profile = load_profile(source.profile, source.options)
    sent = list(itertools.islice(deliveries(source=name, seed=7), 120))

    outcomes = [push(profile, outgoing.body) for outgoing in sent]

    assert [each for each in outcomes if isinstance(each, ParkReason)] == []
    if name == "drx":  # or the simulator would teach senders to lean on leniency; the id is that of `push`
        leniency = {(each.flags, each.extensions) for each in outcomes if not isinstance(each, ParkReason)}
        assert leniency == {(("id_differs",), ())}
    events = [event for each in outcomes if not isinstance(each, ParkReason) for event in each.events]
    for event in events:
        assert_writable(event)
    assert len({event.type for event in events}) > 1
    assert len({event.key for event in events}) > 5
    again = itertools.islice(deliveries(source=name, seed=7), 120)
    assert [outgoing.body for outgoing in again] == [outgoing.body for outgoing in sent]
