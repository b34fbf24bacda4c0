"""Genuine deliveries with bodies from a hostile corpus, and requests that would forge a log: to a running ingress."""

import asyncio
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from bridge.avro.codec import Codec
from bridge.ingress.json_body import DEPTH_MAX
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.registry.loader import bundled
from tests.builders import a_body, signed_headers
from tests.cluster import Cluster
from tests.integration.ingress_process import IngressProcess, Reply, ask, deliver, header
from tests.integration.service_process import HANG_S, until
from tests.unit.profile_documents import SAMPLES

pytestmark = [pytest.mark.kafka, pytest.mark.usefixtures("standard_topics")]

BODY_MAX = 262_144
LINE_MAX_BYTES = 8192
LOCK = bundled()
CODEC = Codec(schemas=LOCK.schemas(), ids=LOCK.ids())
GOOD = a_body(id="evt_good")


def with_member(text: bytes) -> bytes:
    """Put a member with this text for its value in front of those of a good body."""
    return b'{"x":' + text + b"," + GOOD[1:]


# What a body is, and the detail it is parked with.
BROKEN = {
    "ten thousand levels": (with_member(b"[" * 10_000 + b"]" * 10_000), "depth"),
    "a level too many": (with_member(b"[" * DEPTH_MAX + b"]" * DEPTH_MAX), "depth"),
    "nothing but openers": (b"[" * BODY_MAX, "syntax"),
    "nothing but quotes": (b'"' * BODY_MAX, "trailing"),
    "5,000 digits": (with_member(b"9" * 5000), "number_range"),
    "a fraction of 200,000 digits beyond all": (with_member(b"9" * 200_000 + b".5"), "number_range"),
    "1e400": (with_member(b"1e400"), "number_range"),
    "2^64": (with_member(b"18446744073709551616"), "number_range"),
    "NaN": (with_member(b"NaN"), "nan"),
    "-Infinity": (with_member(b"-Infinity"), "nan"),
    "the same key twice": (with_member(b'1,"x":2'), "duplicate_key"),
    "the same key, escaped": (with_member(b'1,"\\u0078":2'), "duplicate_key"),
    "a byte order mark": (b"\xef\xbb\xbf" + GOOD, "bom"),
    "UTF-16": (GOOD.decode().encode("utf-16"), "not_utf8"),
    "UTF-16 without a mark": (GOOD.decode().encode("utf-16-le"), "syntax"),
    "a lone surrogate": (with_member(b'"\\ud800"'), "surrogate"),
    "a surrogate in UTF-8": (with_member(b'"\xed\xa0\x80"'), "not_utf8"),
    "overlong UTF-8": (with_member(b'"\xc0\xaf"'), "not_utf8"),
    "a raw NUL": (with_member(b'"\x00"'), "syntax"),
    "a raw line end": (with_member(b'"\n"'), "syntax"),
    "a NUL behind": (GOOD + b"\0", "trailing"),
    "two documents": (GOOD + GOOD, "trailing"),
    "every byte": (bytes(range(256)) * 1000, "not_utf8"),
}


async def post(session: aiohttp.ClientSession, ingress: IngressProcess, number: int, body: bytes) -> Reply:
    return await deliver(session, ingress, body, webhook_id=f"evt_{number}")


async def test_what_breaks_a_rule_is_parked_byte_for_byte_and_nowhere_else(tmp_path: Path, cluster: Cluster) -> None:
    samples = [(path.read_bytes(), "") for path in sorted((SAMPLES / "hostile").iterdir())]
    bodies = [*BROKEN.values(), *samples]
    with IngressProcess(tmp_path, cluster.bootstrap_servers) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            replies = [await post(session, ingress, number, body) for number, (body, _) in enumerate(bodies)]
        records = await ingress.records()

    assert [(reply.status, reply.json["reason"]) for reply in replies] == [(202, "malformed_json")] * len(bodies)
    assert {record.topic for record in records} == {UNRECOGNIZED_TOPIC}
    found = {header(record, "ce_id"): value_of(record.value) for record in records}
    assert [found[f"evt_{number}"]["body"] for number in range(len(bodies))] == [body for body, _ in bodies]
    details = [found[f"evt_{number}"]["detail"] for number in range(len(BROKEN))]
    assert dict(zip(BROKEN, details, strict=True)) == {name: detail for name, (_, detail) in BROKEN.items()}


# Parts of a request that end up near a log line, each made to end or to forge one.
BREAKERS = ('"}\\n{"event":"delivery.accepted"', "\x1b[2J", "\u2028", "%0d%0a", "\\", "'" * 4000)


async def test_no_request_can_end_or_forge_a_line_of_the_log(tmp_path: Path, cluster: Cluster) -> None:
    asked = 0
    with IngressProcess(tmp_path, cluster.bootstrap_servers) as ingress:
        await asyncio.to_thread(ingress.ready)
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            for number, breaker in enumerate(BREAKERS):
                body = with_member(orjson.dumps({breaker: breaker}))
                printable = "".join(character for character in breaker[:100] if "!" <= character <= "~")
                requests: list[tuple[str, bytes, dict[str, str]]] = [
                    (ingress.webhook_url, body, signed_headers(body, webhook_id=f"evt_{number}_{printable}")),
                    (ingress.webhook_url, body, {"user-agent": breaker, "webhook-id": breaker}),
                    (f"{ingress.url}/webhooks/{breaker[:50]}", body, signed_headers(body)),
                    (ingress.webhook_url, breaker.encode(), signed_headers(breaker.encode(), webhook_id=f"b{number}")),
                    (ingress.webhook_url, *renamed(GOOD, breaker, number)),
                ]
                for url, content, headers in requests:
                    await ask(session, url, method="POST", data=content, headers=encodable(headers))
                    asked += 1
        # A thread writes them, later than the answer.
        until(lambda: deliveries(tmp_path / "stdout") >= asked, what="a line for each request")
        lines = (tmp_path / "stdout").read_bytes().splitlines(keepends=True)

    assert deliveries(tmp_path / "stdout") == asked
    assert all(len(line) <= LINE_MAX_BYTES and line.endswith(b"\n") for line in lines)
    told = [orjson.loads(line) for line in lines]
    assert all(isinstance(each, dict) and "timestamp" in each for each in told)
    assert not any(byte < 0x20 or byte > 0x7E for line in lines for byte in line.rstrip(b"\n"))


def deliveries(output: Path) -> int:
    """Count the lines of deliveries; one that forges another would be one more."""
    return sum(line.count(b'"event":"delivery.') for line in output.read_bytes().splitlines())


def renamed(body: bytes, breaker: str, number: int) -> tuple[bytes, dict[str, str]]:
    document: dict[str, Any] = orjson.loads(body)
    content = orjson.dumps({**document, "type": breaker})
    return content, signed_headers(content, webhook_id=f"type_{number}")


def encodable(headers: dict[str, str]) -> dict[str, str]:
    return {name: value.encode("ascii", "replace").decode().replace("\x1b", "?") for name, value in headers.items()}


def value_of(payload: bytes | None) -> dict[str, Any]:
    assert payload is not None
    return CODEC.decode(payload).value
