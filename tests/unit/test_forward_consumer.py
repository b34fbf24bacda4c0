"""What the settings of forward make of it."""

from __future__ import annotations

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Lanes, Setup
from consumers.forward.consumer import open_forward

LEAST = {"url": "https://ehr.example/drx", "secrets_dir": "/etc/drx-bridge/forward"}


def setup(**options: str) -> Setup:
    return Setup({**LEAST, **options}, CollectorRegistry())


def test_the_least_settings_make_a_consumer_of_both_topics() -> None:
    consumer = open_forward(setup())

    assert (consumer.name, consumer.group) == ("forward", "forward")
    assert consumer.topics == ("drx.prescriptions.v1", "drx.accounts.v1")
    assert consumer.mode == Lanes(8)
    assert consumer.unknown == "park"
    assert consumer.handler_timeout_s > 10
    assert consumer.tables is None
    assert consumer.wants("renewal.requested")


def test_each_instance_is_a_group_of_its_own() -> None:
    consumer = open_forward(setup(instance="ehr", lanes="64", types="renewal.*, fill.status_changed", timeout_s="30"))

    assert (consumer.name, consumer.group) == ("forward", "forward.ehr")
    assert consumer.mode == Lanes(64)
    assert consumer.wants("renewal.requested")
    assert not consumer.wants("prescription.sent")
    assert consumer.handler_timeout_s > 30


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": ""}, "forward.url"),
        ({"instance": "Not-One"}, "forward.instance"),
        ({"lanes": "0"}, "forward.lanes"),
        ({"lanes": "1000"}, "forward.lanes"),
        ({"timeout_s": "0"}, "forward.timeout_s"),
        ({"timeout_s": "nan"}, "forward.timeout_s"),
        ({"payload": "all"}, "forward.payload"),
        ({"method": "GET"}, "forward.method"),
        ({"url": "https://a.example/?b", "path": "/c"}, "path cannot follow a URL with a query"),
        ({"imports": "yes"}, "forward.imports"),
        ({"types": ""}, "forward.types"),
        ({"accounts": " , "}, "forward.accounts"),
        ({"when": "data.["}, "forward.when"),
        ({"ulr": "hunter2"}, "no setting 'ulr'"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words) as caught:
        open_forward(setup(**options))

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["url", "secrets_dir"])
def test_what_has_no_default_must_be_there(name: str) -> None:
    with pytest.raises(ConfigError, match=f"CONSUMER_FORWARD__{name.upper()}"):
        open_forward(Setup({key: value for key, value in LEAST.items() if key != name}, CollectorRegistry()))


def test_a_missing_library_is_named_with_what_installs_it() -> None:
    code = (
        "import sys; sys.modules['standardwebhooks'] = None\n"
        "from bridge.errors import ConfigError\n"
        "try: import consumers.forward.consumer\n"
        "except ConfigError as exc: print(exc)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)  # noqa: S603 - our own line

    assert "pip install 'drx-bridge[forward]'" in done.stdout


async def test_plain_http_must_be_allowed(tmp_path: object) -> None:
    consumer = open_forward(setup(url="http://ehr.example", secrets_dir=str(tmp_path)))

    assert consumer.around is not None
    with pytest.raises(ConfigError):
        async with consumer.around():
            pass
