"""The settings of consumers: sections, dependencies, and no values in errors."""

from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.runtime.configuration import masked
from consumers.settings import Postgres, check_settings, load_settings

INSTALLED = ["read_model", "refill-desk"]
pytestmark = pytest.mark.usefixtures("clean")


def given(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


def test_each_installed_consumer_has_a_section_of_plain_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where a text could be taken for JSON."""
    given(monkeypatch, CONSUMER_READ_MODEL__SCHEMA="next", CONSUMER_READ_MODEL__LIMITS='{"a": 1}')
    given(monkeypatch, CONSUMER_REFILL_DESK__URL="http://desk")

    settings = load_settings(INSTALLED)

    assert settings.options("read_model") == {"schema": "next", "limits": '{"a": 1}'}
    assert settings.options("refill-desk") == {"url": "http://desk"}


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CONSUMER_FHIR__URL": "s3cret"}, "CONSUMER_FHIR__URL: unknown section 'fhir'"),
        ({"CONSUMER_POSTGRES_DSN": "s3cret"}, "CONSUMER_POSTGRES_DSN: unknown setting"),
        ({"CONSUMER_READ_MODEL_SCHEMA": "s3cret"}, "CONSUMER_READ_MODEL_SCHEMA: unknown setting"),
        ({"CONSUMER_READ_MODEL": "s3cret"}, "CONSUMER_<SECTION>__<NAME>"),
        ({"CONSUMER_READ_MODEL__A__B": "s3cret"}, "CONSUMER_READ_MODEL__A: "),
        ({"CONSUMER_KAFKA__OFFSET_RESET": "s3cret"}, "CONSUMER_KAFKA__OFFSET_RESET: "),
        ({"CONSUMER_KAFKA__SESSION_S": "5"}, "CONSUMER_KAFKA__SESSION_S: "),
        ({"CONSUMER_SHUTDOWN__GRACE_S": "111"}, "CONSUMER_SHUTDOWN__GRACE_S: "),
        ({"CONSUMER_POSTGRES__DSN": "s3cret", "CONSUMER_POSTGRES__DSN_FILE": "/s3cret"}, "are both set"),
    ],
)
def test_a_mistake_is_named_in_one_line_without_its_value(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], named: str
) -> None:
    given(monkeypatch, **variables)

    with pytest.raises(ConfigError) as caught:
        load_settings(INSTALLED)

    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_dsn_is_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    given(monkeypatch, CONSUMER_POSTGRES__DSN="postgresql://u:s3cret@db/drx")

    settings = load_settings(INSTALLED)

    assert settings.postgres.address() == "postgresql://u:s3cret@db/drx"
    assert "s3cret" not in f"{masked(settings)} {settings!r} {settings}"


@pytest.mark.parametrize("content", [None, "", "\npostgresql://u:s3cret@db/drx\n"])
def test_a_file_without_a_dsn_is_named(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "dsn"
    if content is not None:
        file.write_text(content)

    with pytest.raises(ConfigError, match=r"postgres\.dsn_file: cannot read .*/dsn") as caught:
        Postgres(dsn_file=file).address()

    assert "s3cret" not in str(caught.value)


def test_what_is_in_clear_or_talkative_is_refused_until_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    def failed() -> list[str]:
        found = check_settings(load_settings(INSTALLED))
        return [
            each.sentence.rpartition(" ")[2] for each in found if each.check == "risks" and each.verdict == "failed"
        ]

    given(monkeypatch, CONSUMER_LOG__LEVEL="debug")
    assert failed() == []  # on this machine

    given(monkeypatch, CONSUMER_KAFKA__BOOTSTRAP_SERVERS="kafka:9092")
    assert failed() == ["CONSUMER_ACCEPT=plaintext_kafka", "CONSUMER_ACCEPT=debug_log"]

    given(monkeypatch, CONSUMER_ACCEPT="debug_log")
    assert failed() == ["CONSUMER_ACCEPT=plaintext_kafka"]

    given(monkeypatch, CONSUMER_KAFKA__SECURITY_PROTOCOL="SSL")
    assert failed() == []
