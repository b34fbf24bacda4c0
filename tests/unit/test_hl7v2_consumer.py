"""What the settings of hl7v2 make of it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from consumers.api import Consumer, Lanes, Setup
from consumers.hl7v2.consumer import HELD_MAX, open_hl7v2

LEAST = {"host": "engine.example", "port": "6661"}


def opened(**options: str) -> Consumer:
    return open_hl7v2(Setup({**LEAST, **options}, CollectorRegistry()))


def test_the_least_settings_make_a_consumer_of_one_topic() -> None:
    consumer = opened()

    assert (consumer.name, consumer.group) == ("hl7v2", "hl7v2")
    assert consumer.topics == ("drx.prescriptions.v1",)
    assert isinstance(consumer.mode, Lanes)
    assert consumer.mode.transactional
    assert consumer.unknown == "park"
    assert consumer.tables is not None
    assert consumer.tables.schema == "hl7v2"


def test_each_instance_has_a_group_and_tables_of_its_own() -> None:
    consumer = opened(instance="ehr-2")

    assert consumer.group == "hl7v2.ehr-2"
    assert consumer.tables is not None
    assert consumer.tables.schema == "hl7v2_ehr_2"


def test_there_is_time_for_all_that_may_wait_for_a_patient() -> None:
    assert opened(ack_timeout_s="3").handler_timeout_s > HELD_MAX * 3


def test_doctor_is_told_where_health_information_goes() -> None:
    secured, kept = opened(instance="ehr").discloses or ()
    plain, _ = opened(allow_plaintext="true").discloses or ()

    assert secured == "whole messages: sent to engine.example:6661"
    assert plain == "whole messages, in clear: sent to engine.example:6661"
    assert "hl7v2_ehr" in kept
