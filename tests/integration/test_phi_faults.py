"""Health information in exceptions, on disk and in a crash stays in record values."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bridge.contract.events import EVENT_MODELS
from tests.builders import a_delivery
from tests.cluster import Topics
from tests.integration.consumer_process import ConsumerProcess, drx_consumer, install_code
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.phi_documents import Marked, Seen
from tests.integration.phi_faults import PLACES, VARIABLE
from tests.integration.service_process import HANG_S, ServiceProcess, until
from tests.originals import encoded
from tests.postgres import execute
from tests.prescriptions import native
from tests.topic_filler import fill

pytestmark = pytest.mark.kafka

# Nobody listens on it.
NO_KAFKA = "127.0.0.1:9"
NOWHERE = "nowhere "
# Twice the deadline of an answer: at a place whose failure is answered by nothing, nothing more is sent then.
REQUEST_S = 2.0
# What was never answered is in flight for ever; more than the deadline of an answer.
GRACE_S = "6"
SETTINGS = {"LOG__LEVEL": "debug", "HTTP__DEADLINE_S": "1"}


def look_at(process: ServiceProcess, seen: Seen) -> None:
    seen.seen |= {path: process.asked(path)[1].decode() for path in ("/metrics", "/readyz")}


async def send_all(session: aiohttp.ClientSession, ingress: IngressProcess, seen: Seen, name: str) -> str:
    """Send deliveries to be accepted, parked for content and for id, and refused; return the responses."""
    body, other = (json.dumps(seen.document(name).document).encode() for _ in range(2))
    answers = []
    for webhook_id, content, headers in (
        (name, body, {}),
        (name, other, {}),
        (f"{name}-parked", body.replace(b'"version": "1"', b'"version": "%s"' % seen.text().encode()), {}),
        (f"{name}-refused", body, {"webhook_signature": f"v1,{seen.text()}"}),
    ):
        try:
            async with asyncio.timeout(REQUEST_S):
                reply = await deliver(session, ingress, content, webhook_id=webhook_id, **headers)
            answers.append(f"{reply.body!r} {reply.headers}")
        except aiohttp.ClientError as exc:
            answers.append(type(exc).__name__)
        except TimeoutError:
            break
    return "\n".join(answers)


async def test_an_exception_at_any_place_says_nothing_that_it_holds(kafka: str, tmp_path: Path) -> None:
    fault = tmp_path / "fault"
    fault.write_text(NOWHERE)
    seen = Seen()
    settings = SETTINGS | {"SHUTDOWN__GRACE_S": GRACE_S}
    command = ["env", f"{VARIABLE}={fault}", sys.executable, "-m", "tests.integration.phi_faults", "bridge", "serve"]
    with IngressProcess(tmp_path, kafka, command=command, **settings) as ingress:
        await asyncio.to_thread(ingress.ready)
        for number, place in enumerate(PLACES):
            async with aiohttp.ClientSession() as session:
                fault.write_text(f"{place} {seen.text()}")
                seen.seen[f"answers at {place}"] = await send_all(session, ingress, seen, f"evt_{number}")
                fault.write_text(NOWHERE)
            if not ingress.alive:
                ingress.start()
            await asyncio.to_thread(ingress.live)
        look_at(ingress, seen)
        await ingress.end()
        seen.seen["output"] = ingress.output()

    hits = fault.with_suffix(".hits").read_text().splitlines()
    assert set(PLACES) - set(hits) == set()
    assert len(set(hits)) >= 30
    assert seen.leaks() == {}
    assert "Traceback" not in seen.seen["output"]
    answers = "".join(seen.seen.values())
    assert {
        reason for reason in ("id_conflict", "unexpected", "unusable") if f'"reason":"{reason}"' not in answers
    } == set()


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be in a directory of its own, which is also that of temporary files."""
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.chdir(scratch)
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    return scratch


def content_of(directory: Path) -> str:
    return "\n".join(
        f"{path.relative_to(directory)} {path.read_bytes().decode('latin-1') if path.is_file() else ''}"
        for path in sorted(directory.rglob("*"))
    )


async def test_a_crash_leaves_nothing_but_what_is_sealed(tmp_path: Path, scratch: Path) -> None:
    """While Kafka is away: what was taken is on disk, in files whose names and bytes say nothing."""
    seen = Seen()
    with IngressProcess(tmp_path / "run", NO_KAFKA, **SETTINGS) as ingress:
        await asyncio.to_thread(ingress.live)
        async with asyncio.timeout(HANG_S), aiohttp.ClientSession() as session:
            for each in range(5):
                seen.seen["answers"] = await send_all(session, ingress, seen, f"evt_{each}")
        process = Path(f"/proc/{ingress.pid}")
        seen.seen["title"] = (process / "cmdline").read_text() + (process / "comm").read_text()
        assert "Max core file size" in (process / "limits").read_text()
        assert (process / "limits").read_text().split("Max core file size")[1].split()[0] in {"0", "1"}
        assert await ingress.end(signal.SIGSEGV) == -signal.SIGSEGV

    seen.seen["spool and output"] = content_of(tmp_path / "run")
    seen.seen["scratch"] = content_of(scratch)
    assert "spool/" in seen.seen["spool and output"]
    assert seen.leaks() == {}
    assert "core" not in seen.seen["scratch"]


def write(kafka: str, topic: str, seen: Seen, event_types: Iterable[str]) -> list[Marked]:
    made = [seen.document(f"evt_{number}", event_type=each) for number, each in enumerate(event_types)]
    events = [native(json.dumps(each.document).encode()) for each in made]
    fill(kafka, [encoded(event, a_delivery(id=event.id))._replace(topic=topic) for event in events])
    return made


CONSUMER = """
from consumers.api import Consumer, Lanes
from tests.integration.phi_faults import failures

async def handle(event, context):
    number, text = int(event.id.rpartition("_")[2]), repr(event.value)
    if number == 8:  # what PostgreSQL complains about stands in its message
        await context.connection.execute("select cast('%s' as integer)" % event.key)
    if number == 9:
        event.value["no such field"][event.key]
    raise failures(event.key, text)[number]

consumer = Consumer(name="desk", topics=["{topic}"], mode=Lanes(4, transactional=True), handle=handle, group="{topic}")
"""
HANDLED = 10
PARKED = "select count(*) from drx_consumer.parked_key where key like 'PHI%'"
ROWS = """
select row_to_json(p)::text from drx_consumer.parked_key as p
union all
select (to_jsonb(p) - 'value')::text from drx_consumer.parked_event as p
"""


async def test_a_handler_that_fails_with_an_event_in_its_exception_leaves_it_in_the_parked_value(
    kafka: str, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    seen, topic = Seen(), topics.fresh()
    keys = {each.key for each in write(kafka, topic, seen, ["prescription.created"] * HANDLED)}
    env = install_code(tmp_path / "package", "desk", CONSUMER.format(topic=topic))
    with ConsumerProcess(tmp_path, "desk", bootstrap_servers=kafka, dsn=postgres, env=env, LOG__LEVEL="debug") as desk:
        desk.ready()
        # The one that fails with an `OSError` waits for as long as it does: the sink may be away.
        until(lambda: execute(postgres, PARKED) == [[(HANDLED - 1,)]], what="all others parked")
        look_at(desk, seen)
        for command in ("resume --reason drill", "retry --all --reason drill"):
            verb, *options = command.split()
            code, _, seen.seen[f"stderr of {verb}"] = await drx_consumer(desk.env, "parked", verb, "desk", *options)
            assert code in {0, 2}
        assert await desk.end() == 0
        seen.seen["output"] = desk.output()
    assert seen.leaks() == {}

    # Where the key may stand, nothing else of the event does.
    seen.markers -= keys
    (rows,) = execute(postgres, ROWS)
    assert len(rows) == 2 * (HANDLED - 1)
    seen.seen = {"rows": "\n".join(row for (row,) in rows)}
    _, seen.seen["list"], _ = await drx_consumer(desk.env, "parked", "list", "desk")
    _, seen.seen["show"], _ = await drx_consumer(desk.env, "parked", "show", "desk", min(keys))
    assert seen.leaks() == {}
    _, shown, _ = await drx_consumer(desk.env, "parked", "show", "desk", min(keys), "--show-phi")
    assert sum(marker in shown for marker in seen.markers) > 10


async def test_the_read_model_keeps_what_it_applies_in_its_tables(
    kafka: str, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    seen, topic = Seen(), topics.fresh()
    write(kafka, topic, seen, EVENT_MODELS)
    settings: dict[str, Any] = {"LOG__LEVEL": "debug", "READ_MODEL__TOPICS": topic}
    with ConsumerProcess(tmp_path, "read_model", bootstrap_servers=kafka, dsn=postgres, **settings) as reader:
        applied = "select count(*) from drx_consumer.inbox"
        reader.ready()
        until(lambda: execute(postgres, applied) == [[(len(EVENT_MODELS),)]], what="all of it applied")
        look_at(reader, seen)
        assert await reader.end() == 0
        seen.seen["output"] = reader.output()

    assert seen.leaks() == {}


def test_a_marker_on_disk_would_be_found(tmp_path: Path) -> None:
    seen = Seen()
    (tmp_path / seen.text()).write_bytes(b"\xff" + seen.text().encode())
    seen.seen["disk"] = content_of(tmp_path)

    assert seen.leaks() == {"disk": seen.markers}
    assert os.fspath(tmp_path) not in seen.seen["disk"]
