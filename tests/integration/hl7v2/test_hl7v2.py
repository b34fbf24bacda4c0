import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from typing import Any

import pytest
from hl7.mllp import start_hl7_server
from prometheus_client import CollectorRegistry

from bridge.dev.ports import free_port
from bridge.errors import TransientError
from bridge.event import Event
from consumers.hl7v2.consumer import open_hl7v2
from consumers.hl7v2.mapping import EVENT_PART, event_part
from consumers.hl7v2.mllp import Hl7Metrics, Link
from consumers.hl7v2.options import Hl7Options
from consumers.testing import Parked, Running, an_event, running
from tests.installed import ROOT
from tests.kafka import HANG_S, until

Act = Callable[[Any, Any, Any], Awaitable[None]]
"""Answers a message: `(message, reader, writer)` of `hl7.mllp`."""


def acknowledges(code: str = "AA", *, condition: str = "", of: str = "", more: str = "") -> Act:
    """Answer as an application does, with an error of table 0357 if there is one; `of` is another's MSH-10."""

    async def act(message: Any, _reader: Any, writer: Any) -> None:
        lines = [
            "MSH|^~\\&|EHR||DRX||20260101000000||ACK^O09^ACK|1|P|2.5.1",
            f"MSA|{code}|{of or control_id(message)}|said by whom it may concern",
        ]
        if condition:
            lines.append(f"ERR||PID^1|{condition}^words|E")
        writer.writeblock("\r".join([*lines, more]).encode())
        await writer.drain()

    return act


def sends(raw: bytes, *, then_closes: bool = False) -> Act:
    async def act(message: Any, _reader: Any, writer: Any) -> None:
        writer.write(raw.replace(b"MSH-10", control_id(message).encode()))
        await writer.drain()
        if then_closes:
            writer.close()

    return act


async def says_nothing(_message: Any, _reader: Any, _writer: Any) -> None:
    """Leave the sender waiting."""


async def resets(_message: Any, _reader: Any, writer: Any) -> None:
    writer.transport.abort()


def control_id(message: Any) -> str:
    return str(message.segment("MSH")[10])


@dataclass
class Receiver:
    """A server that follows a script, one step for each message; later messages are acknowledged."""

    acts: list[Act] = field(default_factory=list)
    taken: list[Any] = field(default_factory=list)  # messages that were acknowledged, in order
    tried: list[str] = field(default_factory=list)  # every received message
    connections: int = 0  # number of opened connections
    at_once: int = 0  # maximum of open connections at one time
    port: int = 0
    open: int = 0

    async def serve(self, reader: Any, writer: Any) -> None:
        self.connections += 1
        self.open += 1
        self.at_once = max(self.at_once, self.open)
        try:
            while not writer.is_closing():
                message = await reader.readmessage()
                self.tried.append(str(message))
                act = self.acts.pop(0) if self.acts else None
                if act is None:
                    self.taken.append(message)
                await (act or acknowledges())(message, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.open -= 1
            writer.close()

    def ids(self) -> list[str]:
        return [control_id(each)[:EVENT_PART] for each in self.taken]


@asynccontextmanager
async def a_receiver(*acts: Act, port: int = 0) -> AsyncIterator[Receiver]:
    receiver = Receiver(list(acts))
    tasks: set[asyncio.Task[None]] = set()
    writers: set[Any] = set()

    async def connected(reader: Any, writer: Any) -> None:
        writers.add(writer)
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await receiver.serve(reader, writer)

    server = await start_hl7_server(connected, "127.0.0.1", port, encoding="utf-8")
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for writer in writers:
            writer.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(HANG_S):
                await asyncio.gather(*tasks)


PATIENT = {"first_name": "Marisol", "last_name": "Quintero", "date_of_birth": date(1979, 2, 28), "sex": "F", "mrn": "1"}
OPEN = {"service": "hl7v2", "state": "open"}


def options(port: int, **more: str) -> dict[str, str]:
    return {"host": "127.0.0.1", "port": str(port), "allow_plaintext": "true", "no_patient": "send", **more}


@asynccontextmanager
async def sending(*acts: Act, **more: str) -> AsyncIterator[tuple[Receiver, Running]]:
    async with a_receiver(*acts) as receiver:
        async with running(open_hl7v2, options=options(receiver.port, **more)) as consumer:
            yield receiver, consumer
        await until(lambda: receiver.open == 0)


def asked(consumer: Running, code: str) -> float:
    labels = {"service": "hl7v2", "code": code}
    return consumer.registry.get_sample_value("drxbridge_hl7v2_requests_total", labels) or 0


def sent(key: str, *, id: str, **fields: Any) -> Event:  # noqa: A002 - the attribute's name
    return an_event("prescription.sent", key=key, id=id, **fields)


async def test_each_event_is_one_message_in_order_on_one_connection() -> None:
    types = ("prescription.sent", "prescription.processed")
    events = [an_event(types[number // 5 % 2], key=f"rx_{number % 5}", id=f"evt_{number}") for number in range(40)]
    async with sending() as (receiver, consumer):
        await consumer.feed(*events)

        assert await consumer.parked() == []
        rows = await consumer.fetch("select control_id, event_id, key, source, kind from hl7v2.sent")
    assert receiver.connections == 1
    for key in {event.key for event in events}:
        of_key = [event_part(event) for event in events if event.key == key]
        assert [each for each in receiver.ids() if each in of_key] == of_key
    assert {(row[0][:EVENT_PART], *row[1:]) for row in map(tuple, rows)} == {
        (event_part(event), event.id, event.key, event.source, "OMP") for event in events
    }
    assert [str(each.segment("ORC")[1]) for each in receiver.taken].count("NW") == 5


async def test_as_many_connections_as_it_may_have_and_no_more() -> None:
    async def slow(message: Any, reader: Any, writer: Any) -> None:
        await asyncio.sleep(0.05)
        await acknowledges()(message, reader, writer)

    events = [sent(f"rx_{number}", id=f"evt_{number}") for number in range(24)]
    async with sending(*[slow] * 24, connections="3") as (receiver, consumer):
        await consumer.feed(*events)

    assert (receiver.at_once, len(receiver.tried)) == (3, 24)


# The first two may be the record's own fault, and after the first five the connection is in step.
LATER = {
    "an internal error": acknowledges("AE", condition="207"),
    "a record that is locked": acknowledges("CE", condition="206"),
    "another processing id": acknowledges("AR", condition="202"),
    "a receiver that is down": acknowledges("AR", condition="207"),
    "no reason": acknowledges("CR"),
    "another control id": acknowledges("AA", of="another"),
    "no code": acknowledges("??"),
    "silence": says_nothing,
    "a reset": resets,
    "half a frame": sends(b"\x0bMSH|^~\\&|EHR\r", then_closes=True),
    "no frame": sends(b"\x0cMSH|^~\\&|EHR\rMSA|AA|MSH-10\r\x1c\x0d"),
    "an empty frame": sends(b"\x0b\x1c\x0d"),
    "no MSA": sends(b"\x0bMSH|^~\\&|EHR\r\x1c\x0d"),
    "no control id": sends(b"\x0bMSH|^~\\&|EHR\rMSA|AA|\r\x1c\x0d"),
    "no head": sends(b"\x0bMSA|AA|MSH-10\r\x1c\x0d"),
    "no more than a code": sends(b"\x0bMSH|^~\\&|EHR\rMSA|AA\r\x1c\x0d"),
    "HTTP": sends(b"HTTP/1.1 400 Bad Request\r\n\r\n", then_closes=True),
    "no end": sends(b"\x0b" + b"x" * 200_000),
}


@pytest.mark.parametrize("name", LATER)
async def test_what_may_work_later_is_sent_again_with_the_same_bytes(name: str) -> None:
    act, number = LATER[name], [*LATER].index(name)
    async with sending(act, act, ack_timeout_s="0.5") as (receiver, consumer):
        await consumer.feed(sent("rx_1", id="evt_1"), sent("rx_1", id="evt_2"))

        assert await consumer.parked() == []
        retried = {"service": "hl7v2", "topic": "drx.prescriptions.v1", "outcome": "retry"}
        assert bool(consumer.registry.get_sample_value("drxbridge_consumer_records_total", retried)) == (number < 2)
    assert len(set(receiver.tried)) == 2
    assert len(receiver.tried) >= 4
    assert (receiver.connections == 1) == (number < 5)


async def test_an_acknowledgement_may_be_long_or_the_last_of_its_connection() -> None:
    """It may quote the message that it is of, and the next one comes on the same connection unless that was closed."""
    last = sends(b"\x0bMSH|^~\\&|\xe9\rMSA|AA|MSH-10\x1c\x0d", then_closes=True)
    acts = [acknowledges("CA", condition="207", more=f"NTE|1||{'x' * size}\r") for size in (65_430, 65_536, 200_000)]
    async with sending(last, *acts) as (receiver, consumer):
        await consumer.feed(sent("rx_1", id="evt_4"))
        await consumer.feed(*(sent(f"rx_{number}", id=f"evt_{number}") for number in range(4)))

        assert await consumer.parked() == []
        assert (asked(consumer, "ok"), asked(consumer, "cut_off")) == (5, 0)
    assert (len(receiver.tried), receiver.connections) == (5, 2)


@pytest.mark.parametrize(
    ("act", "code"),
    [
        (acknowledges("AE", condition="101"), "ae_101"),
        (acknowledges("AE", condition="of its own"), "ae"),
        (acknowledges("AE"), "ae"),
        (acknowledges("CE"), "ae"),
        (acknowledges("AR", condition="204"), "ar_204"),
    ],
)
async def test_what_is_refused_for_good_is_parked_with_what_follows_of_its_key(act: Act, code: str) -> None:
    async with sending(act) as (receiver, consumer):
        await consumer.feed(sent("rx_1", id="evt_1"), sent("rx_1", id="evt_2"))
        await consumer.feed(sent("rx_2", id="evt_3"))

        assert await consumer.parked() == [Parked("rx_1", "evt_1", code), Parked("rx_1", "evt_2", "key_parked")]
        await consumer.release("rx_1")

        assert await consumer.parked() == []
    assert receiver.ids() == [event_part(sent("", id=each)) for each in ("evt_3", "evt_1", "evt_2")]


async def test_what_waits_for_its_patient_is_sent_in_order_once_the_patient_is_known() -> None:
    types = ("prescription.sent", "prescription.processed", "prescription.processed")
    thin = [an_event(each, key="rx_1", id=f"evt_{8 - number}") for number, each in enumerate(types)]
    whole = sent("rx_1", id="evt_9", patient=PATIENT)
    async with sending(no_patient="hold") as (receiver, consumer):
        await consumer.feed(*thin)
        assert receiver.tried == []
        assert len(await consumer.fetch("select from hl7v2.held")) == 3

        await consumer.feed(whole)
        assert await consumer.parked() == []
        assert await consumer.fetch("select from hl7v2.held") == []
    assert receiver.ids() == [event_part(event) for event in (*thin, whole)]
    assert {str(each.segment("PID")[5]) for each in receiver.taken} == {"Quintero^Marisol^^^^^L"}
    assert [str(each.segment("ORC")[1]) for each in receiver.taken] == ["NW", "SC", "SC", "XX"]


def held(consumer: Running, outcome: str) -> float | None:
    return consumer.registry.get_sample_value("drxbridge_hl7v2_held_total", {"service": "hl7v2", "outcome": outcome})


async def test_one_that_waited_and_is_refused_holds_nothing_back_and_is_kept() -> None:
    thin = [an_event("prescription.processed", key="rx_1", id=f"evt_{number}") for number in range(3)]
    whole = sent("rx_1", id="evt_9", patient={**PATIENT, "middle_name": "\x07"})
    async with sending(resets, acknowledges("AE", condition="101"), no_patient="hold") as (receiver, consumer):
        await consumer.feed(*thin, whole)
        for _ in range(2):  # as if so long ago that the inbox has forgotten it
            await consumer.feed(sent("rx_1", id="evt_10"))
            await consumer.fetch("delete from drx_consumer.inbox")

        assert await consumer.parked() == []
        assert await consumer.fetch("select code from hl7v2.held") == [("ae_101",)]
        assert (held(consumer, "waiting"), held(consumer, "refused")) == (3, 1)
        dropped = "drxbridge_hl7v2_characters_dropped_total"
        assert consumer.registry.get_sample_value(dropped, {"service": "hl7v2"}) == 5
        newer = "select p.updated_at > min(s.sent_at) from hl7v2.prescription p, hl7v2.sent s group by p.updated_at"
        assert await consumer.fetch(newer) == [(True,)]
    assert receiver.ids() == [event_part(event) for event in (*thin[1:], whole, *[sent("", id="evt_10")] * 2)]


async def test_the_consumer_may_read_and_write_its_tables_and_no_more() -> None:
    query = """
        select t.name, array_agg(p.kind order by p.kind) from (values ('prescription'), ('sent'), ('held')) t (name),
          unnest(array['select', 'insert', 'update', 'delete', 'truncate']) p (kind)
        where has_table_privilege('drx_consumer', 'hl7v2.' || t.name, p.kind) group by 1
        """
    async with sending() as (_, consumer):
        allowed = dict(await consumer.fetch(query))

    assert allowed == {
        "prescription": ["insert", "select", "update"],
        "sent": ["insert", "select"],
        "held": ["delete", "insert", "select", "update"],
    }


async def test_the_receiver_of_the_page_prints_and_acknowledges_each_message() -> None:
    port = free_port()
    receiver = await asyncio.create_subprocess_exec(
        sys.executable, "docs/examples/hl7v2/receiver.py", str(port), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    events = [sent("rx_1", id=f"evt_{number}", patient=PATIENT) for number in range(3)]
    try:
        async with running(open_hl7v2, options=options(port)) as consumer:
            await consumer.feed(*events)

            assert await consumer.parked() == []
    finally:
        receiver.terminate()
        said, _ = await receiver.communicate()
    heads = [line for line in said.decode().splitlines() if line.startswith("MSH")]
    assert [line.split("|")[9][:EVENT_PART] for line in heads] == [event_part(event) for event in events]


async def test_a_ping_opens_a_connection_that_is_kept_unless_all_are_in_use() -> None:
    async with a_receiver() as receiver:
        values: dict[str, Any] = options(receiver.port)
        link = Link(Hl7Options(**values), Hl7Metrics(CollectorRegistry(), service="hl7v2"))
        await link.ping()
        await link.ping()
        connection = link._free.get_nowait()
        await link.ping()
        link._free.put_nowait(connection)
        await until(lambda: receiver.open == 1)
        await link.aclose()
        await until(lambda: receiver.open == 0)
        link._free.put_nowait(None)
    for _ in range(2):
        with pytest.raises(TransientError, match="unreachable") as caught:
            await link.ping()
        assert caught.value.systemic


async def test_without_tls_only_where_that_is_allowed() -> None:
    async with a_receiver() as receiver:
        async with running(open_hl7v2, options=options(receiver.port, allow_plaintext="false")) as consumer:
            consumer.offer(sent("rx_1", id="evt_1"))
            await until(lambda: any(asked(consumer, code) for code in ("tls", "unreachable", "cut_off")))
        assert receiver.tried == []
