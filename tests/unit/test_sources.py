"""The settings of a source, and the errors of invalid or weak ones."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from bridge.errors import ConfigError
from bridge.mapping.profile import Profile
from bridge.proof.scheme import HmacKey, KeySet, KeySlot, ProofKey, PublicKey, SharedSecret
from bridge.proof.secrets import slots_of
from bridge.runtime.findings import Finding, refuse
from bridge.runtime.secret_files import SecretsError, SlotDirectory
from bridge.settings import Settings, SourceSettings
from bridge.sources import address_limit, check_new_keys, scheme_of
from bridge.start_checks import check_keys, check_proof, check_start

DAY = 86_400
NETWORKS = {"scheme_networks": "192.0.2.0/24"}
HMAC = {"scheme": "body_hmac", "scheme_header": "X-Signature"}
DATED = {"scheme_timestamp_header": "X-Time", "scheme_template": "{timestamp}.{body}"}
TOKEN = {"scheme": "jwt", "scheme_issuer": "https://issuer.example", "scheme_audience": "us"}
pytestmark = pytest.mark.usefixtures("clean")


def a_source(**changes: Any) -> SourceSettings:
    return SourceSettings.model_validate(
        {"profile": "drx_standard", "environment": "sandbox", "secrets_dir": "/run/secrets/drx", **changes}
    )


def complaint(source: SourceSettings, *, window_s: int = DAY, bucket_s: int = 0, tls: bool = False) -> str:
    """Return why a start refuses a source; empty when it goes on."""
    profile = cast("Profile", SimpleNamespace(DEDUPE_WINDOW_S=window_s, BUCKET_S=bucket_s))
    return refusal(check_proof("drx", source, scheme_of("drx", source), profile, tls_in_front=tls))


def refusal(findings: Iterable[Finding]) -> str:
    try:
        refuse(findings)
    except ConfigError as exc:
        return str(exc)
    return ""


WEAK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cidr_alone", {"scheme": "cidr", **NETWORKS}, {}),
    ("url_token_alone", {"scheme": "url_token"}, {"tls": True}),
    ("url_token_alone", {"scheme": "url_token+cidr", "scheme_networks": "0.0.0.0/1,128.0.0.0/1"}, {"tls": True}),
    (
        "every_proxy_trusted",
        {"scheme": "standard_webhooks+cidr", **NETWORKS, "scheme_trusted_proxies": "0.0.0.0/1,128.0.0.0/1"},
        {},
    ),
    ("no_tls", {"scheme": "secret_header"}, {}),
    ("no_tls", {"scheme": "basic"}, {}),
    ("no_tls", {"scheme": "url_token+cidr", **NETWORKS}, {}),
    ("unsigned_id", {"scheme": "github"}, {}),
    ("unsigned_id", {"scheme": "shopify", "scheme_unsigned_id": "use"}, {}),
    ("unsigned_id", {"scheme": "secret_header+github"}, {"tls": True}),
    ("weak_digest", {**HMAC, "scheme_digest": "sha1"}, {}),
    ("unsigned_body", TOKEN, {"tls": True}),
    ("unsigned_body", {**TOKEN, "scheme": "jwt+cidr", **NETWORKS}, {"tls": True}),
    ("no_tls", {**TOKEN, **HMAC, "scheme": "body_hmac+jwt"}, {}),
    ("undated", HMAC, {"window_s": 3599}),
    ("undated", {"scheme": "github", "scheme_unsigned_id": "ignore"}, {"window_s": 600}),
    ("undated", HMAC, {"bucket_s": 600}),
    ("undated", {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS}, {"bucket_s": 600}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": "off"}, {"bucket_s": 600}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": 300}, {"bucket_s": 60}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": "off"}, {"window_s": 3599}),
    ("every_proxy_trusted", {"scheme": "standard_webhooks+cidr", **NETWORKS, "scheme_trusted_proxies": "::/0"}, {}),
]


@pytest.mark.parametrize(("name", "source", "given"), WEAK, ids=[f"{name}-{n}" for n, (name, _, _) in enumerate(WEAK)])
def test_a_weak_source_is_refused_until_it_is_accepted_by_name(
    name: str, source: dict[str, Any], given: dict[str, Any]
) -> None:
    line = complaint(a_source(**source), **given)

    assert line.startswith("BRIDGE_SOURCES__DRX__SCHEME: ")
    assert line.endswith(f"or accept it: BRIDGE_SOURCES__DRX__ACCEPT={name}")
    assert "\n" not in line
    others = {each for each, weak, _ in WEAK if weak == source} - {name}
    assert complaint(a_source(**source, accept=", ".join(["shared_key", name, *others])), **given) == ""


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ({}, {}),
        (HMAC, {"window_s": 3600}),
        ({"tolerance_s": "off"}, {"window_s": 3600}),
        ({**HMAC, **DATED, "tolerance_s": 600}, {"window_s": 1200, "bucket_s": 600}),
        ({}, {"window_s": 600, "bucket_s": 600}),
        ({"scheme": "secret_header"}, {"tls": True, "bucket_s": 600}),
        ({"scheme": "github+standard_webhooks"}, {}),
        ({"scheme": "secret_header+cidr", **NETWORKS}, {"tls": True, "window_s": 60}),
        ({"scheme": "url_token+cidr", **NETWORKS}, {"tls": True}),
        ({**TOKEN, "scheme_body_claim": "sha256"}, {}),
        ({**TOKEN, **HMAC, "scheme": "body_hmac+jwt"}, {"tls": True}),
        ({**TOKEN, "scheme": "standard_webhooks+jwt"}, {"tls": True}),
        ({"scheme": "standard_webhooks+cidr", **NETWORKS, "scheme_trusted_proxies": "10.0.0.0/8,fc00::/7"}, {}),
    ],
)
def test_a_sound_source_starts(source: dict[str, Any], given: dict[str, Any]) -> None:
    assert complaint(a_source(**source), **given) == ""


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.0/8, 128.0.0.0/2"])
def test_not_every_address_is_a_trusted_proxy_of_the_limits(text: str) -> None:
    settings = Settings.model_validate({"http": {"trusted_proxies": text, "address_rate_per_s": 5}})

    with pytest.raises(ConfigError, match=r"^BRIDGE_HTTP__TRUSTED_PROXIES: is more than a /8"):
        address_limit(settings.http)


@pytest.mark.parametrize(
    ("scheme", "window_s"),
    [
        ({"tolerance_s": 400}, 800),
        ({"tolerance_s": 3600}, 7200),
        ({**HMAC, **DATED, "tolerance_s": 900, "accept": "tolerance_off"}, 1800),
    ],
)
def test_ids_are_remembered_while_a_repeat_may_come(scheme: dict[str, Any], window_s: int) -> None:
    """A signed time counts for a tolerance to both sides."""
    line = complaint(a_source(**scheme, dedupe_window_s=window_s - 1), tls=True, bucket_s=600)

    assert line.startswith(f"BRIDGE_SOURCES__DRX__DEDUPE_WINDOW_S: {window_s - 1} s are less than {window_s}")
    assert complaint(a_source(**scheme, dedupe_window_s=window_s), tls=True, bucket_s=600) == ""


def slot(secret: bytes) -> KeySlot:
    return KeySlot("current", HmacKey(secret))


def complaint_of_keys(keys: Mapping[str, Sequence[KeySlot]], *sources: SourceSettings) -> str:
    """Return why a start refuses keys; empty when it goes on."""
    settings = Settings(sources=dict(zip(keys, sources, strict=True)))
    return refusal(check_keys(settings, keys))


def test_two_sources_with_one_key_are_refused_until_both_accept_it() -> None:
    keys = {"drx": (slot(bytes(range(32))), slot(bytes(range(8)))), "other": (slot(bytes(range(8))),)}

    line = complaint_of_keys(keys, a_source(), a_source())

    assert line.startswith("BRIDGE_SOURCES__OTHER__SECRETS_DIR: has a key that drx also has")
    accepted = a_source(accept="shared_key")
    assert complaint_of_keys(keys, accepted, a_source())
    assert complaint_of_keys(keys, accepted, accepted) == ""


# Section "Small order points" of the code of libsodium 1.0.18, ge25519_has_small_order: y; each has two signs.
SMALL_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("text", SMALL_ORDER)
def test_a_public_key_that_anybody_can_sign_for_is_refused(text: str) -> None:
    plain = bytes.fromhex(text)
    for raw in (plain, plain[:-1] + bytes([plain[-1] | 0x80])):
        line = complaint_of_keys({"drx": (KeySlot("current", PublicKey(raw)),)}, a_source())

        assert "current: anybody can sign for this public key" in line


@pytest.mark.parametrize(
    "key",
    [
        HmacKey(b"k" * 32),
        SharedSecret(b"changeme"),
        *((first, HmacKey(b"k" * 32)) for first in (SharedSecret(b"a-secret"), KeySet(()))),
    ],
)
def test_a_secret_of_a_few_different_bytes_is_refused(key: ProofKey) -> None:
    assert "current: a secret of fewer than 8 different bytes" in complaint_of_keys(
        {"drx": (KeySlot("current", key),)}, a_source()
    )


@pytest.mark.parametrize(("accepts", "outcome"), [("", "failed"), ("shared_key", "reloaded")])
def test_a_key_of_another_source_is_not_taken_over_while_running(tmp_path: Path, accepts: str, outcome: str) -> None:
    source = a_source(**HMAC, accept=accepts)
    settings = Settings.model_validate({"sources": {"drx": source, "other": source}})
    outcomes: list[str] = []
    opened: dict[str, SlotDirectory[KeySlot]] = {}
    for name in settings.sources:
        (tmp_path / name).mkdir()
        (tmp_path / name / "current").write_text(f"the-secret-of-{name}")
        check = partial(check_new_keys, settings, opened, name)
        path, scheme = tmp_path / name, scheme_of(name, source)
        opened[name] = SlotDirectory(path, slots_of(scheme), source=name, observe=outcomes.append, check=check)
    before = opened["other"].keys

    (tmp_path / "other" / "current").write_text("the-secret-of-drx")
    for _ in range(2):
        opened["other"].poll()

    assert outcomes == [outcome]
    assert (opened["other"].keys == before) == (outcome == "failed")
    (tmp_path / "other" / "current").write_text("another-secret-of-other")
    for _ in range(2):
        opened["other"].poll()
    assert outcomes == [outcome, "reloaded"]


def test_a_risk_that_is_none_is_named() -> None:
    with pytest.raises(ValidationError, match="known are cidr_alone"):
        a_source(accept="everything")


def test_a_guessable_key_is_not_taken_over_while_running() -> None:
    settings = Settings(sources={"drx": a_source()})

    with pytest.raises(SecretsError) as caught:
        check_new_keys(settings, {}, "drx", [slot(b"k" * 32)])

    assert caught.value.code == "secret_guessable"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (
            {"kafka": {"routes": {"*": "a", "?*": "b"}}},
            "no event type matches '*', or longer patterns match all of them",
        ),
        ({"http": {"trusted_proxies": "::ffff:10.0.0.0/104"}}, "HTTP__TRUSTED_PROXIES: must be a list of networks"),
        ({"http": {"trusted_proxies": "224.0.0.0/4"}}, "HTTP__TRUSTED_PROXIES: must be a list of networks"),
    ],
)
def test_what_matches_nothing_is_refused(settings: dict[str, Any], said: str) -> None:
    found = [each.text for each in check_start(Settings.model_validate(settings)) if each.verdict == "failed"]

    assert [says for says in found if said in says], found


def test_helms_order_of_patterns_is_as_good_as_any() -> None:
    settings = Settings.model_validate({"kafka": {"routes": {"*": "all", "epcs.*": "epcs"}}})

    assert [each.text for each in check_start(settings) if "kafka.routes" in each.text] == []


@pytest.mark.parametrize("networks", ["::ffff:192.0.2.0/120", "192.0.2.0/24,ff00::/8"])
def test_a_network_that_no_delivery_comes_from_is_refused(networks: str) -> None:
    with pytest.raises(ConfigError, match="SCHEME_NETWORKS: must be a list of networks"):
        scheme_of("drx", a_source(scheme="cidr", scheme_networks=networks))


def test_secrets_are_required_unless_the_scheme_has_none() -> None:
    assert scheme_of("drx", a_source(secrets_dir=None, scheme="cidr", **NETWORKS)).name == "cidr"
    with pytest.raises(ConfigError, match="BRIDGE_SOURCES__DRX__SECRETS_DIR: is required by the scheme basic"):
        scheme_of("drx", a_source(secrets_dir=None, scheme="basic"))
