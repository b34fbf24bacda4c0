import json
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bridge.contract.native import native_json
from bridge.event import Event
from consumers.commands.compare import PolledFact, unmatched
from consumers.testing import an_event
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.postgres import execute
from tests.read_model import open_model
from tests.topic_filler import Lives, fill

LIVES = Lives.of_records(500)
SETTLED = "select coalesce(sum(next_offset), 0)::int from drx_consumer.progress"


@pytest.mark.kafka
async def test_what_was_dropped_is_named_until_nothing_is_missing(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    topic = topics.fresh()
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "READ_MODEL__TOPICS": topic,
    }
    records = {dict(each.headers)["ce_id"].decode(): each for each in LIVES.records(topic)}
    events = [event for number in range(LIVES.prescriptions) for event in LIVES.events(number)]
    bodies = {event.id: native_json(event.value) for event in events}
    dropped = random.Random(7).sample(sorted(bodies), 37)  # noqa: S311 - no key
    export, missing, metrics = (tmp_path / name for name in ("all.ndjson", "missing.ndjson", "drx.prom"))
    export.write_bytes(b"\n".join(bodies.values()))
    ask = ("compare", str(export), "--mapping", "drx_standard", "--json", "--missing", str(missing))

    async def compared(*arguments: str) -> tuple[int, dict[str, Any]]:
        code, out, err = await drx_consumer(consumer_environment(**given), *ask, *arguments)
        assert err == ""
        return code, json.loads(out)

    with ConsumerProcess(tmp_path, "read_model", **given) as read_model:
        read_model.ready()
        for come, settled, left in ((bodies.keys() - dropped, len(bodies) - 37, 37), (dropped, len(bodies), 0)):
            fill(cluster.bootstrap_servers, (record for event_id, record in records.items() if event_id in come))
            until(lambda: execute(postgres, SETTLED) == [[(settled,)]], what=f"{settled} events")  # noqa: B023 - asked at once
            code, found = await compared("--textfile", str(metrics))

            assert (code, found["lines"], found["missing"], found["unmapped"]) == (int(left > 0), len(bodies), left, 0)
            assert sum(each["events"] for each in found["by"]) == len(bodies)
            assert sum(each["missing"] for each in found["by"]) == left
            assert f"\ndrxbridge_compare_missing {left}\n" in metrics.read_text()
            if left:
                assert set(missing.read_bytes().splitlines()) == {bodies[each] for each in dropped}
                assert missing.stat().st_mode & 0o077 == 0
                assert (await compared("--allow", "37"))[0] == 0
    assert missing.read_bytes() == b""


async def test_facts_about_no_prescription_are_found_by_what_their_keys_are_made_of(
    postgres: str, tmp_path: Path
) -> None:
    def facts(at: int) -> list[Event]:
        more: dict[str, Any] = {"occurred_at": datetime(2026, 5, at, tzinfo=UTC)}
        asked: dict[str, Any] = {"prescription_id": None, "request_id": f"rr_{at}", "matched": False}
        return [
            an_event("system.ping", key="acct_1", **more),
            an_event("prescriber.enrollment_changed", **more),
            an_event("renewal.requested", key=f"req:rr_{at}", **asked, **more),
        ]

    async with open_model(postgres) as model:
        await model.apply(*facts(1), *facts(2), topic="drx.accounts.v1")
    lines = [native_json(event.value) for day in (1, 2, 3) for event in facts(day)]
    lines += [b'{"id": "CANARY"}', b"\xff\xfe", b"x" * 262_145]
    export, missing = tmp_path / "export.ndjson", tmp_path / "missing.ndjson"
    export.write_bytes(b"\n".join(lines))
    env = consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=postgres)

    code, out, err = await drx_consumer(
        env, "compare", str(export), "--mapping", "drx_standard", "--missing", str(missing), "--json"
    )

    assert (code, json.loads(out)["missing"], json.loads(out)["unmapped"]) == (1, 3, 3)
    assert missing.read_bytes().splitlines() == lines[6:9]
    assert err.splitlines() == [
        "line 10 cannot be mapped: unknown_type /type",
        "line 11 cannot be mapped: malformed_json not_utf8",
        "line 12 cannot be mapped: unusable body_too_large",
    ]


NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("facts", "known", "left"),
    [
        ([0, 10], [50], [10]),
        ([0], [120], []),
        ([0], [121], [0]),
        # Each needs one of its own, and an equal time is its own.
        ([0, 60], [60], [0]),
        ([0, 0], [0], [0]),
        ([0, 100, 200], [100, 220], [0]),
        ([0, 100], [90, 190], []),
    ],
)
def test_each_fact_needs_one_of_its_own(facts: list[int], known: list[int], left: list[int]) -> None:
    moments = [NOON + timedelta(seconds=each) for each in known]

    found = unmatched([PolledFact(NOON + timedelta(seconds=at), 1) for at in facts], moments, timedelta(seconds=120))

    assert [(fact.at - NOON).seconds for fact in found] == left


@pytest.mark.parametrize(
    ("file", "mapping", "says"),
    [
        ("nowhere.ndjson", "drx_standard", "cannot be read"),
        ("export.ndjson", "nobody", "--mapping: no profile is named 'nobody'"),
        ("export.ndjson", "nowhere.toml", "--mapping: options.mapping: cannot read nowhere.toml"),
        ("export.ndjson", "drx_standard", "PostgreSQL: "),
    ],
)
async def test_what_cannot_be_compared_is_one_line(tmp_path: Path, file: str, mapping: str, says: str) -> None:
    (tmp_path / "export.ndjson").write_bytes(native_json(an_event("prescription.sent").value))
    env = consumer_environment(bootstrap_servers="127.0.0.1:1", dsn="postgresql://u:s3cret@127.0.0.1:1/d")

    code, out, err = await drx_consumer(env, "compare", str(tmp_path / file), "--mapping", mapping)

    assert (code, out, says in err, err.count("\n")) == (2, "", True, 1)
    assert "s3cret" not in err
