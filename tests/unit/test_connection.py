from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.kafka.connection import KafkaConnection


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("kafka:9093", [("kafka", 9093)]),
        (" a:1 , b:2 ", [("a", 1), ("b", 2)]),
        ("a:1,,b:2,", [("a", 1), ("b", 2)]),
        ("[::1]:9092", [("::1", 9092)]),
        ("kafka.example.:9092", [("kafka.example.", 9092)]),
        ("käfka:9092", [("käfka", 9092)]),
    ],
)
def test_servers_are_host_and_port(text: str, servers: list[tuple[str, int]]) -> None:
    assert KafkaConnection(text).servers == servers


@pytest.mark.parametrize(
    "text",
    [
        *("", " , ", ":9092", "kafka:", "kafka:x", "kafka:0", "kafka:65536", "kafka:٣", "[]:1"),
        *("kafka..example:9092", ".kafka:9092", f"{'k' * 64}:9092"),
    ],
)
def test_what_is_no_server_is_named_with_its_setting(text: str) -> None:
    with pytest.raises(ConfigError, match="bootstrap_servers"):
        _ = KafkaConnection(text).servers


def test_credentials_are_read_anew_for_each_client(tmp_path: Path) -> None:
    """A rotated password counts from the next connect, without a restart."""
    username, password = tmp_path / "username", tmp_path / "password"
    username.write_text("bridge\n")
    password.write_text("old\n")
    connection = KafkaConnection(
        "kafka:9092",
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="SCRAM-SHA-256",
        sasl_username_file=username,
        sasl_password_file=password,
    )
    assert connection.options()["sasl_plain_password"] == "old"

    password.write_text("new\n")

    assert connection.options()["sasl_plain_password"] == "new"
    assert connection.options()["sasl_plain_username"] == "bridge"


@pytest.mark.parametrize("content", [None, b"", b"\n", b"\xff\xfe"])
def test_a_password_file_that_cannot_be_used_is_named_and_not_shown(tmp_path: Path, content: bytes | None) -> None:
    (tmp_path / "username").write_text("bridge")
    path = tmp_path / "password"
    if content is not None:
        path.write_bytes(content)
    connection = KafkaConnection(
        "kafka:9092",
        security_protocol="SASL_SSL",
        sasl_mechanism="PLAIN",
        sasl_username_file=tmp_path / "username",
        sasl_password_file=path,
    )

    with pytest.raises(ConfigError, match="sasl_password_file"):
        connection.options()


@pytest.mark.parametrize("setting", ["ssl_cafile", "ssl_certfile"])
def test_a_certificate_file_that_cannot_be_used_is_named(tmp_path: Path, setting: str) -> None:
    path = tmp_path / "file.pem"
    path.write_text("not a certificate")
    cafile, certfile = (path, None) if setting == "ssl_cafile" else (None, path)
    connection = KafkaConnection("kafka:9092", security_protocol="SSL", ssl_cafile=cafile, ssl_certfile=certfile)

    with pytest.raises(ConfigError, match=setting):
        connection.options()
