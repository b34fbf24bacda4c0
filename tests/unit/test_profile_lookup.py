"""A source's profile is found by its configured name."""

import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.mapping import drx_standard
from bridge.mapping.lookup import GROUP, load_profile, open_profiles
from bridge.mapping.profile import IGNORED, bucket_s, dedupe_window_s, read_body
from tests.unit.mapping_files import ACME, BODY
from tests.unit.profile_documents import SENT, a_delivery, edited
from tests.unit.vendor_documents import event_of, events, parked, push

OF_A_SITE = EntryPoint("site", "bridge.mapping.drx_standard", GROUP)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drx_standard", {"zone": "UTC"}, "options.zone is unknown; known: none"),
        ("dosespot_push", {"mapping": "x"}, "options.mapping is unknown; known: account_id, zone, prefix"),
        ("digitalrx_pharmacy", {}, "options.account_id is required"),
        ("digitalrx_pharmacy", {"account_id": "a", "zone": "Mars"}, "options.zone: no time zone is named 'Mars'"),
        ("dosespot_push", {"zone": "../etc/passwd"}, "options.zone: no time zone is named '../etc/passwd'"),
        (
            "photon_cloudevents",
            {"states": "SHIPPED=flown"},
            "options.states: 'flown' is not a value of 'fulfillment_status'",
        ),
        ("photon_cloudevents", {"states": "SHIPPED"}, "options.states: 'SHIPPED' is not WORD=MEANING"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile(name, options)

    assert str(caught.value).startswith(message)


def a_source(profile: str, *ignored: str, **options: str) -> Any:
    return SimpleNamespace(profile=profile, options=options, ignored=frozenset(ignored))


def opened(**prefixes: str) -> dict[str, Any]:
    """Open sources of one vendor with these prefixes; one without has that of its file."""
    given = {name: {"prefix": prefix} if prefix else {} for name, prefix in prefixes.items()}
    return open_profiles(
        {name: a_source("digitalrx_pharmacy", account_id=name, **options) for name, options in given.items()}
    )


@pytest.mark.parametrize("prefixes", [{"a": "", "b": ""}, {"a": "q:", "b": ""}, {"a": "", "b": "q:", "c": "q2:"}])
def test_sources_whose_equal_ids_would_be_one_key_are_refused(prefixes: dict[str, str]) -> None:
    """Two pharmacies that number their queues from 1 would write into one prescription."""
    with pytest.raises(ConfigError, match=r"^sources\.[ab]\.options\.prefix: keys of a and b begin with 'q:'"):
        opened(**prefixes)


@pytest.mark.parametrize(
    ("prefixes", "keys"),
    [({"a": "", "b": "q2:"}, ["q:7", "q2:7"]), ({"a": "q:", "b": "q:"}, ["q:7", "q:7"])],
    ids=["apart", "shared_by_name"],
)
def test_sources_of_one_vendor_have_prefixes_of_their_own_or_share_one_by_name(
    prefixes: dict[str, str], keys: list[str]
) -> None:
    profiles = opened(**prefixes)

    found = [profile.map(a_delivery(), {"QueueID": "7"}).events[0].key for profile in profiles.values()]
    assert found == keys


@pytest.mark.parametrize("profile", ["digitalrx_pharmacy", "dosespot_push", "photon_cloudevents", "mapped"])
@pytest.mark.parametrize("prefix", ["", "q", "Q:", "req:", "q::", f"{'q' * 17}:"])
def test_a_prefix_is_checked(profile: str, prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"^options\.prefix: prefix is not a letter"):
        load_profile(profile, {"account_id": "a", "prefix": prefix})


def test_a_prefix_of_the_option_comes_before_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    options = {"account_id": "a", "mapping": str(file), "prefix": "acme2:"}
    file.write_text(ACME)

    assert [event.key for event in events(load_profile("mapped", options), BODY)] == ["acme2:7"]

    file.write_text(ACME.replace('prefix = "acme:"', "native = true"))
    with pytest.raises(ConfigError, match="a source of native ids has no prefix"):
        load_profile("mapped", options)


def test_native_drx_refuses_ids_that_begin_like_the_keys_of_a_mapping() -> None:
    """Equal keys of two sources would put two prescriptions into one order."""
    mapping = a_source("digitalrx_pharmacy", account_id="a", prefix="acme:")
    other = a_source("dosespot_push", account_id="a", prefix="aa:")
    sources = {"drx": a_source("drx_standard", "patient.updated"), "acme": mapping, "aa": other}
    native = open_profiles(sources)["drx"]
    edits = {"/data/prescription_id": '"acme:7"'}

    assert push(native, edited(SENT, edits)) == ParkReason("unusable", "bad_key", "/data/prescription_id")
    assert event_of(native, edited(SENT, edits | {"/type": '"patient.changed"'})).key == "acct_4021"


def test_a_source_of_xml_has_a_mapping_file(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(ACME.replace("kind", "f.kind").replace("rx.id", "f.rx.id").replace("words(state", "words(f.state"))
    options = {"mapping": str(file), "account_id": "a"}
    xml = SimpleNamespace(profile="mapped", options=options, ignored=frozenset(), body="xml")

    profile: Any = open_profiles({"acme": xml})["acme"]

    event = event_of(profile, b"<f><kind>STATE</kind><rx><id>7</id></rx><state>DONE</state></f>")
    assert event.key == "acme:7"
    assert parked(profile, b"{}") == ParkReason("malformed_xml", "syntax")
    assert profile.CONTENT_TYPES == ("application/xml", "text/xml", "+xml")
    with pytest.raises(ConfigError, match=r"^sources\.drx\.body: the profile reads JSON only"):
        open_profiles({"drx": SimpleNamespace(profile="drx_standard", options={}, ignored=frozenset(), body="xml")})


def test_the_library_for_xml_is_loaded_by_a_source_of_xml_alone(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    file.write_text(ACME)
    program = f"""
import sys
import bridge.app
from types import SimpleNamespace
from bridge.mapping.lookup import open_profiles
options = {{"mapping": {str(file)!r}, "account_id": "a"}}
for body in ("json", "xml"):
    open_profiles({{"acme": SimpleNamespace(profile="mapped", options=options, ignored=(), body=body)}})
    print(body, "xmltodict" in sys.modules)
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout  # noqa: S603
    assert told == "json False\nxml True\n"


def test_words_that_a_source_names_are_passed_over_whatever_its_profile() -> None:
    counts = "PrescriberNotificationCounts"
    dosespot = a_source("dosespot_push", counts, "PrescriptionResult", account_id="a")
    profiles = open_profiles({"drx": a_source("drx_standard", "patient.updated", "None"), "dosespot": dosespot})

    assert push(profiles["drx"], edited(SENT, {"/type": '"patient.updated"'})) is IGNORED
    for no_word in ("null", '["None"]'):
        assert isinstance(push(profiles["drx"], edited(SENT, {"/type": no_word})), ParkReason)
    assert push(profiles["dosespot"], {"EventType": counts}) is IGNORED
    for status in (3, 4):  # a table is about the second
        ignored = push(
            profiles["dosespot"], {"EventType": "PrescriptionResult", "Data": {"PrescriptionStatus": status}}
        )
        assert (ignored is IGNORED) == (status == 3)
    assert push(profiles["dosespot"], {"EventType": "ClinicianLockedOut"}) is not IGNORED
    with pytest.raises(ConfigError, match=r"^sources\.digitalrx\.ignore: "):
        open_profiles({"digitalrx": a_source("digitalrx_pharmacy", "TYPED", account_id="a")})


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^no profile is named 'drx'; known: .*drx_standard, .*site$"):
        load_profile("drx", registered=[OF_A_SITE])


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no.such.module", "cannot be loaded: ModuleNotFoundError"),
        ("json:nothing", "cannot be loaded: AttributeError"),
        ("json", "has no function 'map"),
    ],
)
def test_a_broken_profile_is_told_by_name(value: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("bad", registered=[EntryPoint("bad", value, GROUP)])

    assert str(caught.value).startswith(f"profile 'bad' ({value}) {why}")


def a_profile(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> EntryPoint:
    monkeypatch.setitem(sys.modules, "a_site", SimpleNamespace(map=drx_standard.map, **attributes))
    return EntryPoint("site", "a_site", GROUP)


def test_a_profile_may_say_how_long_its_ids_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = load_profile("site", registered=[a_profile(monkeypatch, DEDUPE_WINDOW_S=600)])

    assert (dedupe_window_s(profile), dedupe_window_s(drx_standard)) == (600, 86_400)
    assert (bucket_s(profile), read_body(profile, b"[]")) == (0, ParkReason("malformed_json", "not_object"))


@pytest.mark.parametrize("seconds", [599, 2_592_001, 600.5, "600", True, None])
def test_a_window_out_of_bounds_is_told_by_name(monkeypatch: pytest.MonkeyPatch, seconds: object) -> None:
    with pytest.raises(ConfigError, match=r"^profile 'site' \(a_site\): DEDUPE_WINDOW_S is not a whole number"):
        load_profile("site", registered=[a_profile(monkeypatch, DEDUPE_WINDOW_S=seconds)])
