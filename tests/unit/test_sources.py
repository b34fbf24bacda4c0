"""What the settings of a source come to, and where a start says that they are wrong or weak."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge.errors import ConfigError
from bridge.ingress.proof import HmacKey, Key, KeySlot, PublicKey, SharedSecret
from bridge.ingress.schemes.lint import NAMES, shared_keys
from bridge.ingress.secrets import SecretDirectory
from bridge.settings import Settings, Source, load_settings
from bridge.sources import address_limit, check_new_keys, refuse_weak, scheme_of

HOUR, DAY = 3600.0, 86_400.0
NETWORKS = {"scheme_networks": "192.0.2.0/24"}
HMAC = {"scheme": "body_hmac", "scheme_header": "X-Signature"}
DATED = {"scheme_timestamp_header": "X-Time", "scheme_template": "{timestamp}.{body}"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    import os  # noqa: PLC0415 - only here is the environment looked at

    for name in [name for name in os.environ if name.startswith("BRIDGE_")]:
        monkeypatch.delenv(name)


def a_source(**changes: Any) -> Source:
    return Source.model_validate(
        {"profile": "drx_standard", "environment": "sandbox", "secrets_dir": "/run/secrets/drx", **changes}
    )


def complaint(*sources: Source, window_s: float = DAY, bucket_s: int = 0, tls: bool = False, keys: Any = None) -> str:
    """Return what a start says; empty when it goes on."""
    named = dict(zip(("drx", "other"), sources, strict=False))
    settings = Settings.model_validate({"sources": named, "http": {"tls_in_front": tls}})
    schemes = {name: scheme_of(name, source) for name, source in named.items()}
    windows_s, buckets_s = dict.fromkeys(named, window_s), dict.fromkeys(named, bucket_s)
    try:
        refuse_weak(settings, schemes, keys or dict.fromkeys(named, ()), windows_s, buckets_s)
    except ConfigError as exc:
        return str(exc)
    return ""


WEAK: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("cidr_alone", {"scheme": "cidr", **NETWORKS}, {}),
    ("cidr_alone", {"scheme": "cidr", "scheme_networks": "0.0.0.0/0"}, {}),
    ("url_token_alone", {"scheme": "url_token"}, {"tls": True}),
    ("url_token_alone", {"scheme": "url_token+cidr", "scheme_networks": "0.0.0.0/0,::/0"}, {"tls": True}),
    ("url_token_alone", {"scheme": "url_token+cidr", "scheme_networks": "0.0.0.0/1,128.0.0.0/1"}, {"tls": True}),
    (
        "every_proxy_trusted",
        {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS, "scheme_trusted_proxies": "0.0.0.0/1,128.0.0.0/1"},
        {},
    ),
    (
        "every_proxy_trusted",
        {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS, "scheme_trusted_proxies": "::/1, 8000::/2, c000::/2"},
        {},
    ),
    ("no_tls", {"scheme": "secret_header"}, {}),
    ("no_tls", {"scheme": "basic"}, {}),
    ("no_tls", {"scheme": "url_token+cidr", **NETWORKS}, {}),
    ("no_tls", {"scheme": "dosespot"}, {}),
    ("unsigned_id", {"scheme": "github"}, {}),
    ("unsigned_id", {"scheme": "shopify", "scheme_unsigned_id": "use"}, {}),
    ("unsigned_id", {"scheme": "stripe", "scheme_id_header": "X-Id"}, {}),
    ("unsigned_id", {"scheme": "secret_header+github"}, {"tls": True}),
    ("undated", HMAC, {"window_s": HOUR - 1}),
    ("undated", {"scheme": "github", "scheme_unsigned_id": "ignore"}, {"window_s": 60}),
    ("undated", {"scheme": "ed25519", "scheme_header": "X-S"}, {"window_s": 60}),
    ("undated", HMAC, {"bucket_s": 600}),
    ("undated", {"scheme": "github", "scheme_unsigned_id": "ignore"}, {"bucket_s": 600}),
    ("undated", {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS}, {"bucket_s": 600}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": "off"}, {"bucket_s": 600}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": 300}, {"bucket_s": 60}),
    ("tolerance_off", {"tolerance_s": "off"}, {"window_s": HOUR - 1}),
    ("tolerance_off", {**HMAC, **DATED, "tolerance_s": "off"}, {"window_s": HOUR - 1}),
    (
        "every_proxy_trusted",
        {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS, "scheme_trusted_proxies": "10.0.0.0/8,0.0.0.0/0"},
        {},
    ),
    (
        "every_proxy_trusted",
        {**HMAC, "scheme": "body_hmac+cidr", **NETWORKS, "scheme_trusted_proxies": "::/0"},
        {},
    ),
]


@pytest.mark.parametrize(("name", "source", "given"), WEAK, ids=[f"{name}-{n}" for n, (name, _, _) in enumerate(WEAK)])
def test_a_weak_source_is_refused_until_it_is_accepted_by_name(
    name: str, source: dict[str, Any], given: dict[str, Any]
) -> None:
    line = complaint(a_source(**source), **given)

    assert line.startswith("BRIDGE_SOURCES__DRX__SCHEME: ")
    assert line.endswith(f"accept_weak={name}")
    assert "\n" not in line
    assert complaint(a_source(**source, accept_weak=f"shared_key, {name}"), **given) == ""


@pytest.mark.parametrize(
    ("source", "given"),
    [
        ({}, {}),
        ({}, {"window_s": 60.0}),
        ({"tolerance_s": "off"}, {"window_s": HOUR}),
        (HMAC, {"window_s": HOUR}),
        ({**HMAC, **DATED}, {"window_s": 60.0}),
        ({**HMAC, **DATED}, {"window_s": 1200.0, "bucket_s": 600}),
        ({}, {"window_s": 60.0, "bucket_s": 600}),
        ({"scheme": "secret_header"}, {"tls": True, "bucket_s": 600}),
        ({"scheme": "github", "scheme_unsigned_id": "ignore"}, {}),
        ({"scheme": "github+standard_webhooks"}, {}),
        ({"scheme": "secret_header"}, {"tls": True}),
        ({"scheme": "secret_header+cidr", **NETWORKS}, {"tls": True, "window_s": 60.0}),
        ({"scheme": "url_token+cidr", **NETWORKS}, {"tls": True}),
        ({**HMAC, "scheme": "body_hmac+cidr", **NETWORKS, "scheme_trusted_proxies": "10.0.0.0/8"}, {}),
    ],
)
def test_a_sound_source_starts(source: dict[str, Any], given: dict[str, Any]) -> None:
    assert complaint(a_source(**source), **given) == ""


@pytest.mark.parametrize("text", ["0.0.0.0/0", "::/0", "0.0.0.0/1,128.0.0.0/1", "10.0.0.0/8, 128.0.0.0/2"])
def test_not_every_address_is_a_trusted_proxy_of_the_limits(text: str) -> None:
    settings = Settings.model_validate({"http": {"trusted_proxies": text, "address_rate_per_s": 5}})

    with pytest.raises(ConfigError, match=r"^BRIDGE_HTTP__TRUSTED_PROXIES: is more than a /8"):
        address_limit(settings.http)


def test_private_networks_are_trusted_proxies() -> None:
    text = "10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
    settings = Settings.model_validate({"http": {"trusted_proxies": text, "address_rate_per_s": 5}})

    assert address_limit(settings.http) is not None


@pytest.mark.parametrize(
    "scheme", [{"scheme": "secret_header"}, {"scheme": "github", "accept_weak": "unsigned_id,undated"}]
)
def test_ids_are_remembered_as_long_as_equal_bytes_are_a_repeat(scheme: dict[str, str]) -> None:
    """Else a retry in the next bucket would be a second event; an id that is not signed may be missing."""
    source = a_source(**scheme)

    line = complaint(source, tls=True, window_s=1199, bucket_s=600)

    assert line.startswith("BRIDGE_SOURCES__DRX__DEDUPE_WINDOW_S: is at least 1200")
    assert complaint(source, tls=True, window_s=1200, bucket_s=600) == ""


def test_every_weakness_has_a_case_here() -> None:
    assert {name for name, _, _ in WEAK} | {"shared_key"} == set(NAMES)


def slot(secret: bytes) -> KeySlot:
    return KeySlot("current", HmacKey(secret))


def test_two_sources_with_one_key_are_refused_until_both_accept_it() -> None:
    keys = {"drx": (slot(b"a" * 32), slot(b"b" * 32)), "other": (slot(b"b" * 32),)}

    line = complaint(a_source(), a_source(), keys=keys)

    assert line.startswith("BRIDGE_SOURCES__OTHER__SECRETS_DIR: has a key that drx has too")
    accepted = a_source(accept_weak="shared_key")
    assert complaint(accepted, a_source(), keys=keys)
    assert complaint(accepted, accepted, keys=keys) == ""


@pytest.mark.parametrize(("accepts", "outcome"), [("", "failed"), ("shared_key", "reloaded")])
def test_a_key_of_another_source_is_not_taken_over_while_running(tmp_path: Path, accepts: str, outcome: str) -> None:
    source = a_source(**HMAC, accept_weak=accepts)
    settings = Settings.model_validate({"sources": {"drx": source, "other": source}})
    outcomes: list[str] = []
    opened: dict[str, SecretDirectory] = {}
    for name in settings.sources:
        (tmp_path / name).mkdir()
        (tmp_path / name / "current").write_text(f"the-secret-of-{name}")
        check = partial(check_new_keys, settings, opened, name)
        path, scheme = tmp_path / name, scheme_of(name, source)
        opened[name] = SecretDirectory(path=path, scheme=scheme, source=name, observe=outcomes.append, check=check)
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


def test_a_shared_key_is_found_in_every_kind() -> None:
    kinds: list[Key] = [
        HmacKey(b"k" * 32),
        SharedSecret(b"k" * 32),
        PublicKey(bytes(31) + b"\x01"),
        (SharedSecret(b"s" * 16),),
    ]

    for key in kinds:
        slots = [KeySlot("current", key)]
        assert list(shared_keys({"a": slots, "b": slots})) == [("a", "b")]
    assert list(shared_keys({"a": [KeySlot("x", kinds[0]), KeySlot("y", kinds[0])]})) == []


def test_a_weakness_that_is_none_is_named() -> None:
    assert "the names are cidr_alone" in complaint(a_source(accept_weak="everything"))


def given(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> Path:
    file = tmp_path / "bridge.toml"
    file.write_text(text)
    monkeypatch.setenv("BRIDGE_CONFIG", str(file))
    return file


TOML = """\
[http]
port = 8001  # [sources.drx]

[sources.other]
profile = "drx_standard"
environment = "sandbox"
secrets_dir = "/run/secrets/other"

[sources."drx"]
profile = "drx_standard"
environment = "sandbox"
secrets_dir = "/run/secrets/drx"
scheme = "SCHEME"
scheme_template = "{timestamp}"
"""


@pytest.mark.parametrize(
    ("scheme", "line", "setting"),
    [("hmac", 13, "SCHEME"), ("body_hmac", 13, "SCHEME_HEADER"), ("photon", 14, "SCHEME_TEMPLATE")],
)
def test_a_mistake_in_the_file_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scheme: str, line: int, setting: str
) -> None:
    file = given(monkeypatch, tmp_path, TOML.replace("SCHEME", scheme))

    with pytest.raises(ConfigError) as caught:
        scheme_of("drx", load_settings().sources["drx"])

    # Where the setting is not there, the line is that of the table.
    at = 9 if setting == "SCHEME_HEADER" else line
    assert str(caught.value).startswith(f"{file}:{at}: sources.drx.{setting.lower()}: ")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[http]\n\nport = 0", 3),
        ("http.port = 0", 1),
        ("http = { port = 0 }", 1),
        ("# [http]\n[http]\nbody_max_bytes = 5\n  port=0", 4),
        ('[kafka]\npartitions = 6\n[kafka.routes]\n"http" = "x"\n[ "http" ]\n"port" = 0', 6),
    ],
)
def test_a_bad_value_in_the_file_is_named_with_its_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str, line: int
) -> None:
    file = given(monkeypatch, tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert str(caught.value).startswith(f"{file}:{line}: http.port: ")


def test_a_variable_that_overrides_the_file_is_named_itself(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    given(monkeypatch, tmp_path, TOML.replace("SCHEME", "github"))
    monkeypatch.setenv("BRIDGE_SOURCES__drx__SCHEME", "hmac")

    with pytest.raises(ConfigError, match=r"^BRIDGE_SOURCES__DRX__SCHEME: no scheme has this name"):
        scheme_of("drx", load_settings().sources["drx"])


def test_secrets_are_required_unless_the_scheme_has_none() -> None:
    assert scheme_of("drx", a_source(secrets_dir=None, scheme="cidr", **NETWORKS)).name == "cidr"
    with pytest.raises(ConfigError, match="BRIDGE_SOURCES__DRX__SECRETS_DIR: is required by the scheme basic"):
        scheme_of("drx", a_source(secrets_dir=None, scheme="basic"))
