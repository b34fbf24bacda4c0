"""A source's dialect is found by the name that the operator wrote."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.lookup import GROUP, load_profile, open_profiles
from bridge.ingress.profiles.profile import dedupe_window_s

OF_A_SITE = EntryPoint("site", "bridge.ingress.profiles.drx_standard", GROUP)


def test_a_shipped_profile_is_found() -> None:
    assert load_profile("drx_standard") is drx_standard


def test_a_profile_of_another_package_is_found() -> None:
    assert load_profile("site", registered=[OF_A_SITE]) is drx_standard


@pytest.mark.parametrize("name", ["dosespot_push", "photon_cloudevents"])
def test_a_profile_is_built_with_the_options_of_its_source(name: str) -> None:
    profile = load_profile(name, {"account_id": "acct_1"})

    assert getattr(profile, "account_id", "") == "acct_1"


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("drx_standard", {"zone": "UTC"}, "options.zone is unknown; known: none"),
        ("dosespot_push", {"mapping": "x"}, "options.mapping is unknown; known: account_id, zone"),
        ("digitalrx_pharmacy", {}, "options.account_id is required: deliveries without a store are of this account"),
        ("digitalrx_pharmacy", {"account_id": "a", "zone": "Mars"}, "options.zone: no time zone is named 'Mars'"),
        ("dosespot_push", {"zone": "../etc/passwd"}, "options.zone: no time zone is named '../etc/passwd'"),
        ("photon_cloudevents", {"states": "SHIPPED=flown"}, "options.states: 'SHIPPED=flown' is not STATE=STATUS"),
        ("photon_cloudevents", {"states": "SHIPPED"}, "options.states: 'SHIPPED' is not STATE=STATUS"),
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


@pytest.mark.parametrize("seconds", [59, 2_592_001, 600.5, "600", True, None])
def test_a_window_out_of_bounds_is_told_by_name(monkeypatch: pytest.MonkeyPatch, seconds: object) -> None:
    with pytest.raises(ConfigError, match=r"^profile 'site' \(a_site\): DEDUPE_WINDOW_S is no whole number"):
        load_profile("site", registered=[a_profile(monkeypatch, DEDUPE_WINDOW_S=seconds)])
