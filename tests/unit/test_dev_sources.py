"""The senders of `dev` prove what the ingress checks, and push what their profiles read."""

import itertools
from pathlib import Path

import pytest

from bridge.dev.sources import SOURCES
from bridge.dev.story import deliveries
from bridge.errors import DeliveryRefusedError
from bridge.event import ParkReason
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.proof import KeySlot, Raw
from bridge.ingress.schemes.presets import configure
from tests.profile_properties import assert_writable
from tests.unit.vendor_documents import push

NOW = 1_789_398_566


@pytest.fixture(params=SOURCES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_what_a_source_sends_is_proved_by_its_scheme(name: str, tmp_path: Path) -> None:
    source = SOURCES[name]
    file = tmp_path / "current"
    file.write_text(f"{source.new_secret()}\nnot_before = 2026-01-01T00:00:00Z\n")
    scheme = configure(source.scheme, dict(source.parameters), tolerance_s=300)
    slot = KeySlot(name="current", key=scheme.parse_key(file.read_text().splitlines()[0]))

    headers = source.signer(file)("msg_1", NOW, b"{}")
    heads = {header.lower().encode(): value.encode() for header, value in headers.items()}

    assert scheme.prove(Raw(heads, b"{}"), [slot], NOW).slot == "current"
    forged = {header: value[:-1] + (b"0" if value[-1:] != b"0" else b"1") for header, value in heads.items()}
    with pytest.raises(DeliveryRefusedError):
        scheme.prove(Raw(forged, b"{}"), [slot], NOW)


@pytest.mark.parametrize("name", SOURCES)
def test_a_vendor_s_story_becomes_events(name: str) -> None:
    source = SOURCES[name]
    profile = load_profile(source.profile, source.options)
    sent = list(itertools.islice(deliveries(source=name, seed=7), 120))

    outcomes = [push(profile, outgoing.body) for outgoing in sent]

    assert [each for each in outcomes if isinstance(each, ParkReason)] == []
    if name == "drx":  # or the simulator would teach senders to lean on leniency; the id is that of `push`
        leniency = {(each.flags, each.extensions) for each in outcomes if not isinstance(each, ParkReason)}
        assert leniency == {(("id_differs",), 0)}
    events = [event for each in outcomes if not isinstance(each, ParkReason) for event in each.events]
    for event in events:
        assert_writable(event)
    assert len({event.type for event in events}) > 1
    assert len({event.key for event in events}) > 5
    again = itertools.islice(deliveries(source=name, seed=7), 120)
    assert [outgoing.body for outgoing in again] == [outgoing.body for outgoing in sent]
