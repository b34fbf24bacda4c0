"""Benthos, as the benchmark runs it, does the work it is compared by: the same records, and no others."""

from __future__ import annotations

import http.client
import secrets
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from bridge.avro.schema_ids import RECORDS
from bridge.dev.ports import HOST
from bridge.event import Delivery, EncodedEvent
from bridge.ingress.json_body import parse
from bridge.ingress.profiles import drx_standard
from bridge.ingress.profiles.profile import Mapped
from bridge.ingress.schemes.standard_webhooks import sign
from bridge.kafka.connection import Connection
from bridge.kafka.reader import open_reader
from bridge.kafka.record import Record
from bridge.kafka.transport import ConsumedRecord
from tests.bench.servers import Server, benthos, find_benthos
from tests.bench.traffic import HMAC_KEY, PATH, body_of, event_id, number_of
from tests.cluster import Topics
from tests.engine_cases import accepted
from tests.originals import codec

PROGRAM = find_benthos()
pytestmark = pytest.mark.skipif(PROGRAM is None, reason="BENTHOS names no program and the PATH has no `benthos`")
REQUESTS = 300
# Headers that differ between any two writers of a record.
OWN = {"traceparent", "drx_ordinal", "drx_received_at"}


@pytest.fixture
def server(topics: Topics, tmp_path: Path) -> Iterator[Server]:
    topics.standard()
    server = benthos(str(PROGRAM), tmp_path, topics.bootstrap_servers)
    # Numbers, and so ids of events, that no other test has.
    server.made = 10**9 + secrets.randbelow(10**9) * REQUESTS
    server.start()
    try:
        yield server
    finally:
        server.stop()


async def records_of(server: Server, numbers: range, topics: Topics) -> dict[int, ConsumedRecord]:
    """Return what is written of some deliveries; each may be there once."""
    wanted = {event_id(number) for number in numbers}
    found: dict[int, ConsumedRecord] = {}
    async with open_reader(Connection(topics.bootstrap_servers), server.topics, from_beginning=True) as reader:
        async for record in reader.until_end():
            if (name := record.header("ce_id")) in wanted:
                assert number_of(name.encode()) not in found
                found[number_of(name.encode())] = record
    return found


def expected(number: int, written: ConsumedRecord) -> Record:
    """Return the record that the ingress makes of a delivery which it receives when this one was received."""
    body = body_of(number)
    value = codec().decode(written.value or b"").value
    delivery = Delivery(
        source="drx",
        environment="sandbox",
        id=event_id(number),
        received_at=value["received_at"],
        body=body,
        body_sha256=sha256(body).hexdigest(),
        key_slot="current",
        traceparent=written.header("traceparent"),
        headers={},
    )
    document = parse(body)
    assert isinstance(document, dict)
    mapped = drx_standard.map(delivery, document)
    assert isinstance(mapped, Mapped)
    (event,) = mapped.events
    assert not isinstance(event, EncodedEvent)
    record = accepted(event, delivery, 12).record
    assert record.value == codec().encode(RECORDS[event.type], event.value)
    return record


async def test_it_writes_the_records_that_the_ingress_writes(server: Server, topics: Topics) -> None:
    numbers = range(server.made, server.made + REQUESTS)
    seen, _ = server.load(REQUESTS, connections=16)
    assert seen.statuses == {"200": REQUESTS}
    found = await records_of(server, numbers, topics)
    assert found.keys() == set(numbers)
    for number, written in found.items():
        record = expected(number, written)
        assert (written.key, written.value, written.partition) == (record.key, record.value, record.partition)
        assert {each for each in written.headers if each[0] not in OWN} == {
            each for each in record.headers if each[0] not in OWN
        }


@pytest.mark.parametrize(
    ("case", "status"),
    [("altered", 401), ("old", 401), ("unsigned", 401), ("another type", 422), ("unknown member", 422)],
)
async def test_it_writes_nothing_of_what_it_refuses(case: str, status: int, server: Server, topics: Topics) -> None:
    number, body = server.made, body_of(server.made)
    sent_at = int(time.time())
    if case == "old":
        sent_at -= 301
    if case == "another type":
        body = body.replace(b'"type":"prescription.', b'"type":"another.', 1)
    if case == "unknown member":
        body = body.replace(b'"data":{', b'"data":{"unknown":1,', 1)
    signature = sign(event_id(number), sent_at, body, key=HMAC_KEY)
    headers = {"webhook-id": event_id(number), "webhook-timestamp": str(sent_at), "webhook-signature": signature}
    if case == "altered":
        body = body.replace(b"evt_", b"evT_", 1)
    if case == "unsigned":
        del headers["webhook-signature"]
    connection = http.client.HTTPConnection(HOST, server.port, timeout=30)
    try:
        connection.request("POST", f"{PATH}?status=200", body, headers)
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, b"")
    finally:
        connection.close()
    assert await records_of(server, range(number, number + 1), topics) == {}
