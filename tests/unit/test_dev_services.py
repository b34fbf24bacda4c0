from __future__ import annotations

from pathlib import Path

from bridge.dev.processes import Child
from bridge.dev.services import child_environment


def a_child(*, log: Path) -> Child:
    return Child("any", command=["true"], cwd=log.parent, log=log)


def test_a_child_hears_nothing_of_another_system() -> None:
    shell = {
        "PATH": "/bin",
        "BRIDGE_CONFIG": "/etc/production.toml",
        "BRIDGE_KAFKA__SASL_MECHANISM": "PLAIN",
        "bridge_sources__other__profile": "x",
        "BRIDGE_REGISTRY__URL": "http://production",
        "BRIDGE_HTTP__DEADLINE_S": "2",
        "bridge_http__port": "80",
        "CONSUMER_CONFIG": "/etc/production.toml",
        "CONSUMER_POSTGRES__DSN_FILE": "/etc/production",
        "CONSUMER_KAFKA__BOOTSTRAP_SERVERS": "production:9092",
        "CONSUMER_REGISTRY__URL": "http://production",
        "CONSUMER_KAFKA__ACCEPT_CLUSTER_ID": "production",
        "CONSUMER_FORWARD__INSTANCE": "production",
        "CONSUMER_LOG__LEVEL": "debug",
    }

    environment = child_environment(shell, {"BRIDGE_HTTP__PORT": "18080"})

    assert environment == {
        "PATH": "/bin",
        "BRIDGE_HTTP__DEADLINE_S": "2",
        "BRIDGE_HTTP__PORT": "18080",
        "CONSUMER_LOG__LEVEL": "debug",
        "PYTHONUNBUFFERED": "1",
    }


def test_the_last_line_of_a_log_is_the_last_with_something_in_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("x" * 5000 + "\nfirst\nthe reason\n\n")

    assert a_child(log=log).last_line == "the reason"
    assert a_child(log=tmp_path / "none").last_line == ""
