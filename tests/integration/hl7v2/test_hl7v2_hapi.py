"""hl7v2 against HAPI's server, whose parser and validator most interface engines in Java are built on."""

from pathlib import Path

import pytest

from consumers.hl7v2.consumer import open_hl7v2
from consumers.hl7v2.mapping import EVENT_PART, event_part
from consumers.testing import running
from tests.hl7v2.hapi import Hl7Server
from tests.integration.hl7v2.test_hl7v2 import OPEN, PATIENT, options, sent
from tests.kafka import until
from tests.prescriptions import SCENARIOS, scenario
from tests.unit.test_hl7v2_mapping import NATIVE, sample

# Without a text such as `\.br\`: HAPI understands it, and does not escape it when it encodes anew.
HOSTILE = "O'Brien|^~\\&\r\nPID|1||\x0b\x1c\x00é \U0001f48a \\F\\"


def fields(message: str) -> list[list[str]]:
    """Segments and their fields, without empty ones at the end, which nobody need send."""
    return [line.rstrip("|").split("|") for line in message.strip("\r").split("\r")]


@pytest.mark.parametrize("orders", ["omp", "orm"])
async def test_it_understands_each_message_as_it_was_meant(orders: str, tmp_path: Path) -> None:
    events = [sample(name) for name in NATIVE]
    events += [event for name in SCENARIOS for event in scenario(name)[0]]
    patient, medication = PATIENT | {"last_name": HOSTILE}, {"description": HOSTILE, "sig": HOSTILE, "note": HOSTILE}
    events.append(sent("rx_hostile", id="evt_hostile", patient=patient, medication=medication))
    told_all = {"orders": orders, "drafts": "true", "shipments": "true"}
    with Hl7Server(tmp_path) as server:
        async with running(open_hl7v2, options=options(server.port, **told_all)) as consumer:
            await consumer.feed(*events)

            assert await consumer.parked() == []
        taken = server.taken()
    assert len(taken) > len(NATIVE)
    for each in taken:
        assert fields(each.understood) == fields(each.sent)


async def test_what_it_has_no_application_for_waits_until_it_has_one(tmp_path: Path) -> None:
    server = Hl7Server(tmp_path)
    server.takes = ("RDS",)
    events = [sent(f"rx_{number}", id=f"evt_{number}") for number in range(20)]
    async with running(open_hl7v2, options=options(server.port)) as consumer:
        with server:
            consumer.offer(*events)
            await until(lambda: consumer.registry.get_sample_value("drxbridge_circuit_state", OPEN))
        server.takes = ("OMP",)
        with server:
            await consumer.settled()

            assert await consumer.parked() == []
    assert {each.sent.split("|")[9][:EVENT_PART] for each in server.taken()} == {event_part(event) for event in events}
