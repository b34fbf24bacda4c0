"""What the settings of forward make of it."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from bridge.errors import ConfigError
from consumers.api import Lanes, Setup
from consumers.forward.consumer import open_forward

LEAST = {"url": "https://ehr.example/drx", "secrets_dir": "/etc/drx-bridge/forward"}


def setup(**options: str) -> Setup:
    return Setup({**LEAST, **options}, CollectorRegistry())


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
        ({"timeout_s": "0"}, "forward.timeout_s"),
        ({"url": "https://a.example/?b", "path": "/c"}, "path cannot follow a URL with a query"),
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


async def test_plain_http_must_be_allowed(tmp_path: object) -> None:
    consumer = open_forward(setup(url="http://ehr.example", secrets_dir=str(tmp_path)))

    assert consumer.around is not None
    with pytest.raises(ConfigError):
        async with consumer.around():
            pass
