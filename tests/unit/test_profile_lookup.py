"""A source's dialect is found by the name that the operator wrote."""

from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from bridge.errors import ConfigError
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.lookup import GROUP, load_profile

OF_A_SITE = EntryPoint("site", "bridge.ingress.profiles.drx_standard", GROUP)


def test_a_shipped_profile_is_found() -> None:
    assert load_profile("drx_standard") is drx_standard


def test_a_profile_of_another_package_is_found() -> None:
    assert load_profile("site", registered=[OF_A_SITE]) is drx_standard


def test_a_shipped_name_cannot_be_taken() -> None:
    thief = EntryPoint("drx_standard", "json", GROUP)

    assert load_profile("drx_standard", registered=[thief]) is drx_standard


def test_an_unknown_name_is_told_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"^no profile is named 'drx'; known: drx_standard, site$"):
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
