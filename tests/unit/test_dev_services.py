from bridge.dev.services import child_environment


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

    assert child_environment(shell, {"BRIDGE_HTTP__PORT": "18080"}) == {
        "PATH": "/bin",
        "BRIDGE_HTTP__DEADLINE_S": "2",
        "BRIDGE_HTTP__PORT": "18080",
        "CONSUMER_LOG__LEVEL": "debug",
        "PYTHONUNBUFFERED": "1",
    }
