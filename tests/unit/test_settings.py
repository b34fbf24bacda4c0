"""Configuration errors name the setting, and never show a value."""

from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.mapping.profile import DEDUPE_WINDOW_MIN_S
from bridge.proof import origin
from bridge.settings import load_settings

SOURCE = {
    "BRIDGE_SOURCES__drx__PROFILE": "drx_standard",
    "BRIDGE_SOURCES__drx__ENVIRONMENT": "sandbox",
    "BRIDGE_SOURCES__drx__SECRETS_DIR": "/run/secrets/drx",
}
pytestmark = pytest.mark.usefixtures("clean")


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_ids_are_remembered_for_as_long_as_an_operator_s_delivery_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured one would be new again, whatever the scheme's own tolerance."""
    given(monkeypatch, **SOURCE, BRIDGE_SOURCES__drx__DEDUPE_WINDOW_S=str(2 * origin.TOLERANCE_S - 1))
    with pytest.raises(ConfigError, match="DEDUPE_WINDOW_S"):
        load_settings()
    assert 2 * origin.TOLERANCE_S <= DEDUPE_WINDOW_MIN_S


@pytest.mark.parametrize("word", ["1e3", "007", "true", "null", "0x10"])
def test_a_parameter_of_a_scheme_is_text(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    given(monkeypatch, **SOURCE, BRIDGE_SOURCES__drx__SCHEME_WORD=word)
    assert load_settings().sources["drx"].scheme_parameters == {"word": word}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"BRIDGE_KAFAK__PARTITIONS": "s3cret"}, "BRIDGE_KAFAK__PARTITIONS: unknown section 'kafak'"),
        ({"BRIDGE_HTTP__PROT": "s3cret"}, "BRIDGE_HTTP__PROT: unknown setting"),
        ({"BRIDGE_HTTP_PORT": "s3cret"}, "unknown setting; section and name have two underscores between"),
        ({"bridge_http_port": "s3cret"}, "bridge_http_port: unknown setting"),
        ({"BRIDGE_PROFIL": "s3cret"}, "BRIDGE_PROFIL: unknown setting"),
        ({"BRIDGE_SOURCES_drx__PROFILE": "s3cret"}, "unknown section 'sources_drx'; the sections are: accept, dedupe"),
        ({"BRIDGE_LOG__LEVEL": "warn"}, "BRIDGE_LOG__LEVEL: "),
        ({"BRIDGE_HTTP__PORT": "s3cret"}, "BRIDGE_HTTP__PORT: "),
        ({"BRIDGE_HTTP": "s3cret"}, "BRIDGE_<SECTION>__<NAME>"),
        ({"BRIDGE_HTTP__PORT": "0"}, "BRIDGE_HTTP__PORT: "),
        ({"BRIDGE_SOURCES__drx__PROFILE": "s3cret"}, "BRIDGE_SOURCES__DRX__ENVIRONMENT: Field required"),
        ({**SOURCE, "BRIDGE_SOURCES__drx__ENVIRONMENT": "s3cret"}, "BRIDGE_SOURCES__DRX__ENVIRONMENT: "),
        ({"BRIDGE_SPOOL__ENABLED": "s3cret"}, "BRIDGE_SPOOL__ENABLED: "),
        ({"BRIDGE_HTTP__BODY_MAX_BYTES": "2080769"}, "http.body_max_bytes must leave 16384 of kafka.message_max_bytes"),
        ({"BRIDGE_KAFKA__MESSAGE_MAX_BYTES": "1000000"}, "BRIDGE_KAFKA__MESSAGE_MAX_BYTES: "),
        ({"BRIDGE_HTTP__DEADLINE_S": "20"}, "http.deadline_s must be less than a third of shutdown.grace_s"),
        ({"BRIDGE_KAFKA__SECURITY_PROTOCOL": "SASL_SSL"}, "SASL needs sasl_mechanism"),
        ({"BRIDGE_KAFKA__SASL_MECHANISM": "PLAIN"}, "security_protocol is not SASL"),
        ({"BRIDGE_CONFIG": "/nowhere/bridge.toml"}, "BRIDGE_CONFIG: no such file"),
    ],
)
def test_a_mistake_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    given(monkeypatch, **variables)

    with pytest.raises(ConfigError) as caught:
        load_settings()

    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_what_kubernetes_injects_for_a_service_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """`BRIDGE_PORT=tcp://…` comes from a Service named bridge; it has no `__` and must not stop a start."""
    given(monkeypatch, BRIDGE_PORT="tcp://10.0.0.1:80", BRIDGE_SERVICE_HOST="10.0.0.1", BRIDGE_SERVICE_PORT="80")
    given(monkeypatch, BRIDGE_PORT_8080_TCP="tcp://10.0.0.1:80", BRIDGE_PORT_8080_TCP_ADDR="10.0.0.1")
    given(monkeypatch, BRIDGE_HTTP_PORT="tcp://10.0.0.1:80")  # of a Service named bridge-http

    assert load_settings().http.port == 8080


def test_an_empty_variable_leaves_what_the_file_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "bridge.toml"
    file.write_text("[http]\nport = 8001\n")
    given(monkeypatch, BRIDGE_CONFIG=str(file), BRIDGE_HTTP__PORT="")

    assert load_settings().http.port == 8001
