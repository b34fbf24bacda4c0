"""Start checks of both kinds of process: risks, the connection to Kafka, and the keys for ids in logs."""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from pathlib import Path

from bridge.errors import ConfigError
from bridge.kafka.connection import KafkaConnection
from bridge.runtime.findings import Finding, Risk, failures
from bridge.runtime.log_ids import read_id_keys
from bridge.settings import Brokers, LogSettings, named


def check_process(
    kafka: Brokers, log: LogSettings, accept: str, *, prefix: str, further: Iterable[Risk] = ()
) -> Iterator[Finding]:
    """Yield findings; only files are opened. `further` are risks specific to this kind of process."""
    yield from failures("kafka", kafka.connection.options, advice="correct the setting it names")
    # Brokers on the same machine are a developer's, where these risks do not matter.
    if not _all_on_this_machine(kafka.connection):
        for risk in (*_risks(kafka, log, prefix), *further):
            yield risk.judged("risks", accepted=named(accept), where=f"{prefix}ACCEPT")
    yield _check_id_keys(log.id_key_dir, setting=f"{prefix}LOG__ID_KEY_DIR")


def _risks(kafka: Brokers, log: LogSettings, prefix: str) -> Iterator[Risk]:
    if kafka.security_protocol.endswith("PLAINTEXT"):
        text = f"{kafka.security_protocol} sends health information, and any password, in clear text"
        yield Risk("plaintext_kafka", text, f"set {prefix}KAFKA__SECURITY_PROTOCOL to SSL or SASL_SSL")
    if log.level == "debug":
        yield Risk("debug_log", "log messages of libraries may contain values", f"set {prefix}LOG__LEVEL to info")


def _all_on_this_machine(connection: KafkaConnection) -> bool:
    try:
        return all(host == "localhost" or ip_address(host).is_loopback for host, _ in connection.servers)
    except (ConfigError, ValueError):
        return False


def _check_id_keys(directory: Path | None, *, setting: str) -> Finding:
    if directory is None:
        text = "ids are hashed with a random key of each process, so no line can be found by an id"
        return Finding("log", "warning", text, f"set {setting}, the same for every process")
    try:
        keys = read_id_keys(directory)
    except ConfigError as exc:
        return Finding("log", "failed", str(exc), f"correct it, or point {setting} at another directory")
    return Finding("log", "ok", f"ids are hashed; `hash-id` knows the keys {', '.join(key.name for key in keys)}")
