"""The contract of `/metrics` matches the registered metrics and their label values."""

from typing import get_args

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from bridge.ingress.heartbeat import SOURCE
from bridge.ingress.responses import OTHER, POST, ROUTE, SERVICE, SLOT_LABELS
from bridge.kafka.producer import ProducerState
from bridge.mapping.profile import FLAGS
from bridge.response_codes import UNAVAILABLE
from bridge.runtime.metrics import IngressMetrics
from bridge.runtime.secret_files import Reload
from bridge.settings import Settings
from consumers.api import Setup
from consumers.lifecycle.safety import ANOMALY_KINDS, SAFETY_KINDS
from consumers.runtime.circuit import CircuitState
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.metrics import RecordOutcome as RecordEnd
from consumers.runtime.retry_policy import FailureClass
from consumers.workflow.temporal import KINDS
from docs.folders import folders
from tests.metric_contract import SETS, broken
from tests.unit.test_consumer_options import OPENED


def ingress() -> CollectorRegistry:
    return IngressMetrics(CollectorRegistry()).registry


def of_a_consumer(name: str) -> CollectorRegistry:
    registry = ConsumerMetrics(CollectorRegistry(), service=name).registry
    opened, least = OPENED[name]
    opened(Setup(least, registry))
    return registry


def test_the_ingress_registers_what_is_promised_and_nothing_else() -> None:
    assert broken(ingress().collect(), "ingress") == []


@pytest.mark.parametrize("name", [folder.name for folder in folders()])
def test_a_consumer_registers_what_is_promised_and_nothing_else(name: str) -> None:
    assert broken(of_a_consumer(name).collect(), "consumer", name, bounds={"signing_service": ["forward"]}) == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("route", {ROUTE, OTHER}),
        ("method", {POST, OTHER}),
        ("key_slot", set(SLOT_LABELS)),
        ("reload", set(get_args(Reload))),
        ("flag", set(FLAGS)),
        ("ingress_service", {SERVICE}),
        ("producer_state", set(get_args(ProducerState))),
        ("record_end", set(get_args(RecordEnd))),
        ("failure_class", set(get_args(FailureClass))),
        ("circuit_state", set(get_args(CircuitState))),
        ("safety_kind", set(SAFETY_KINDS)),
        ("anomaly_kind", set(ANOMALY_KINDS)),
        ("timer_kind", set(KINDS)),
    ],
)
def test_a_closed_list_is_the_one_of_the_code(name: str, said: set[str]) -> None:
    assert set(SETS[name]) == said
    assert len(SETS[name]) == len(said)


def test_the_ends_of_a_write_are_those_that_a_sender_may_be_told() -> None:
    assert {"acknowledged"} == set(SETS["write_end"]) - set(UNAVAILABLE)


def test_no_configured_source_can_have_the_name_of_the_heartbeat() -> None:
    source = {"profile": "drx_standard", "environment": "sandbox", "secrets_dir": "/secrets"}
    assert Settings.model_validate({"sources": {"heartbeat": source}}).sources

    with pytest.raises(ValidationError):
        Settings.model_validate({"sources": {SOURCE: source}})
    assert SOURCE in SETS["source"]
