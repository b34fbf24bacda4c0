"""A source's dialect is found by the name that the operator wrote."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from importlib.metadata import EntryPoint
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Never, cast

import pytest

from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.lookup import GROUP, load_profile, open_profiles
from bridge.ingress.profiles.preview import map_body
from bridge.ingress.profiles.profile import Profile, dedupe_window_s
from tests.unit.mapping_files import ACME, BODY
from tests.unit.profile_documents import a_delivery
from tests.unit.vendor_documents import events, sample

OF_A_SITE = EntryPoint("site", "bridge.ingress.profiles.drx_standard", GROUP)


def test_a_profile_of_another_package_is_found() -> None:
    assert load_profile("site", registered=[OF_A_SITE]) is drx_standard


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
            "options.states: 'flown' is no word of 'fulfillment_status'",
        ),
        ("photon_cloudevents", {"states": "SHIPPED"}, "options.states: 'SHIPPED' is not WORD=MEANING"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(name: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile(name, options)

    assert str(caught.value).startswith(message)


def test_the_message_begins_with_the_setting() -> None:
    said = {}
    for profile, options in (("absent", {}), ("dosespot_push", {"zone": "Mars"})):
        with pytest.raises(ConfigError) as caught:
            open_profiles({"a": SimpleNamespace(profile=profile, options=options)})
        said[profile] = str(caught.value)

    assert said["absent"].startswith("sources.a.profile: no profile is named")
    assert said["dosespot_push"].startswith("sources.a.options.zone: no time zone")


def opened(**prefixes: str) -> dict[str, Any]:
    sources = {
        name: SimpleNamespace(
            profile="digitalrx_pharmacy",
            options={"account_id": name} | ({"prefix": prefix} if prefix else {}),
            ignored=frozenset(),
        )
        for name, prefix in prefixes.items()
    }
    return open_profiles(sources)


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
@pytest.mark.parametrize("prefix", ["", "q", "Q:", "req:", "q::"])
def test_a_prefix_is_checked(profile: str, prefix: str) -> None:
    with pytest.raises(ConfigError, match=r"^options\.prefix: prefix is not a letter"):
        load_profile(profile, {"account_id": "a", "prefix": prefix})


def test_accounts_and_correlations_have_the_prefix_of_the_option() -> None:
    (dosespot,) = events(load_profile("dosespot_push", {"prefix": "d2:"}), sample("p12"))
    photon = events(load_profile("photon_cloudevents", {"prefix": "p2:"}), sample("p16"))[0]
    (pharmacy,) = events(load_profile("digitalrx_pharmacy", {"account_id": "a", "prefix": "q2:"}), sample("p01"))

    assert (dosespot.key, dosespot.value["correlation_id"]) == ("d2:155502", "d2:rq:1623")
    assert str(dosespot.value["account_id"]).startswith("d2:")
    assert (photon.key, str(photon.value["account_id"])[:3]) == ("p2:rx_01K52AGBC91W1042CDRB19545", "p2:")
    assert (pharmacy.key, pharmacy.value["account_id"]) == ("q2:999001:9000471", "q2:999001")


def test_a_prefix_of_the_option_comes_before_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "acme.toml"
    options = {"account_id": "a", "mapping": str(file), "prefix": "acme2:"}
    file.write_text(ACME)

    assert [event.key for event in events(load_profile("mapped", options), BODY)] == ["acme2:7"]

    file.write_text(ACME.replace('prefix = "acme:"', "native = true"))
    with pytest.raises(ConfigError, match="a source of native ids has no prefix"):
        load_profile("mapped", options)


def test_a_shipped_name_cannot_be_taken() -> None:
    thief = EntryPoint("drx_standard", "json", GROUP)

    assert load_profile("drx_standard", registered=[thief]) is drx_standard


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


@pytest.mark.parametrize("seconds", [599, 2_592_001, 600.5, "600", True, None])
def test_a_window_out_of_bounds_is_told_by_name(monkeypatch: pytest.MonkeyPatch, seconds: object) -> None:
    with pytest.raises(ConfigError, match=r"^profile 'site' \(a_site\): DEDUPE_WINDOW_S is no whole number"):
        load_profile("site", registered=[a_profile(monkeypatch, DEDUPE_WINDOW_S=seconds)])


def test_a_command_shows_what_a_profile_fails_at_as_the_ingress_parks_it() -> None:
    def fails(*_: object) -> Never:
        raise KeyError

    profile = cast("Profile", SimpleNamespace(map=fails))
    delivery_id, found = map_body(profile, b"{}", source="acme", received_at=datetime(2026, 1, 1, tzinfo=UTC))

    assert (delivery_id[:4], found) == ("dlv_", ParkReason("unexpected"))
