import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from consumers.postgres.pool import Database
from consumers.runtime.ledger import Ledger
from consumers.runtime.parking import Why, append, park
from tests.audit_lines import acts, audit_lines, spoken
from tests.integration.consumer_process import Commands, consumer_environment, install_code
from tests.postgres import execute
from tests.topic_filler import Lives

TOPIC, PARTITIONS = "drx.prescriptions.v1", 2
LIVES = Lives(4)
KEY, OTHER = LIVES.prescription_id(1), LIVES.prescription_id(2)
IDS = LIVES.event_ids(1)
RAISED = "bridge.errors.PermanentError at desk.consumer:7"

CODE = """
from consumers.api import Consumer
consumer = Consumer(name="desk", topics=["t"])
@consumer.handler
async def handle(event, context): ...
"""


@pytest.fixture
async def lot(ledger_dsn: str, database: Database) -> Commands:
    """A group that has parked two prescriptions for their first events."""
    ledger = Ledger(database, group="read_model", cluster_id="cluster-a")
    tps = [TopicPartition(TOPIC, number) for number in range(PARTITIONS)]
    epochs = {tp: (await ledger.claim(tp)).epoch for tp in tps}
    for offset, each in enumerate(LIVES.records(TOPIC, partitions=PARTITIONS)):
        tp, key = TopicPartition(TOPIC, each.partition), each.key
        record = ConsumedRecord(*tp, offset, each.timestamp_ms, key, each.value, each.headers)
        if key in {KEY.encode(), OTHER.encode()}:
            async with ledger.begin(tp, epochs[tp]) as settlement:
                if not await append(settlement, record):
                    await park(settlement, record, Why("permanent", "refused", 1, RAISED))
    env = consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=ledger_dsn, READ_MODEL__TOPICS=TOPIC)
    return Commands("read_model", env, ledger_dsn)


WHY = ("--actor", "ann", "--reason", "a drill")


def audited(err: str, act: str, **more: Any) -> None:
    assert acts(err) == [(act, "begun"), (act, "done")]
    assert {(line["actor"], line["reason"]) for line in audit_lines(err)} == {("ann", "a drill")}
    assert KEY not in err
    assert more.items() <= audit_lines(err)[1].items()


async def test_what_is_parked_is_seen_and_what_it_holds_only_when_asked_for(lot: Commands) -> None:
    # An id is any printable text, and to rich brackets are markup and `:car:` is a picture.
    execute(lot.dsn, "update drx_consumer.parked_event set event_id = event_id || '[/x]:car:'")
    keys = await lot.lines("parked list", "--class", "permanent")
    waiting = await lot.lines("parked show", KEY)
    code, table, _ = await lot("parked list")
    _, lines, masked = await lot("parked show", KEY)
    _, shown, disclosed = await lot("parked show", KEY, "--show-phi", "--json", *WHY)

    assert {each["key"] for each in keys} == {KEY, OTHER}
    assert {(each["class"], each["code"], each["raised"]) for each in keys} == {("permanent", "refused", RAISED)}
    assert [each["event_id"] for each in waiting] == [f"{each}[/x]:car:" for each in IDS]
    assert [each["class"] for each in waiting] == ["permanent"] + ["behind"] * (len(IDS) - 1)
    assert [each["raised"] for each in waiting] == [RAISED] + [None] * (len(IDS) - 1)
    assert "value" not in waiting[0]
    first = json.loads(shown.splitlines()[0])
    said = (first["value"]["prescription_id"], first["value"]["event_id"], first["headers"]["ce_id"])
    assert said == (KEY, IDS[0], IDS[0])
    assert (code, KEY in table, table.count(RAISED)) == (0, True, 2)
    assert lines.count("[/x]:car:") == len(IDS)
    assert lines.splitlines()[0].endswith(f"permanent refused  {RAISED}")
    assert audit_lines(masked) == []
    audited(disclosed, "parked.show", records=len(IDS))


async def test_a_dry_run_says_what_it_would_do(lot: Commands) -> None:
    one = await lot("parked retry", KEY, "--dry-run")
    other = await lot("parked retry", KEY, "rx_other", "--dry-run")

    assert [audit_lines(err) for _, _, err in (one, other)] == [[], []]
    assert (one[0], one[1].startswith(f"would retry {KEY} "), one[2]) == (0, True, "1 would be decided\n")
    assert other == (2, "", "drx-consumer: 1 of these 2 keys is not parked; release of the others would be requested\n")
    assert lot.rows("select release_requested_at from drx_consumer.parked_key") == [(None,)] * 2


async def test_a_key_is_set_aside_by_hand(lot: Commands) -> None:
    other, by_hand = (
        LIVES.prescription_id(0),
        "select part, key, code from drx_consumer.parked_key where class = 'operator'",
    )

    (would,) = await lot.lines("parked park", other, "--reason", "told by phone", "--dry-run")
    before = lot.rows(by_hand)
    (done,) = await lot.lines("parked park", other, "--reason", "told by phone", "--actor", "ann")

    assert (before, lot.rows(by_hand)) == ([], [(done["partition"], other, "by_hand")])
    assert (would["partition"], would["key"]) == (done["partition"], done["key"])
    kept = "select verb, actor, reason, key from drx_consumer.audit"
    assert lot.rows(kept) == [("park", "ann", "told by phone", other)]


async def test_a_record_is_skipped_and_a_key_dropped_for_a_reason(lot: Commands) -> None:
    left = f"select part, \"offset\" from drx_consumer.parked_event where key = '{KEY}' order by 2"  # noqa: S608 - ours
    (partition, offset), *behind = lot.rows(left)

    skipped = await lot("parked skip", KEY, "--offset", str(offset), *WHY)
    assert lot.rows(left) == behind
    await lot.lines("parked drop-key", KEY, "--reason", "told twice")

    assert (
        f"1 decided; {len(behind)} records of the key still parked: `drx-consumer parked retry read_model" in skipped[2]
    )
    audited(skipped[2], "parked.skip", places=[f"{TOPIC}/{partition}@{offset}"])
    assert lot.rows("select key from drx_consumer.parked_key") == [(OTHER,)]
    assert lot.rows("select verb, reason from drx_consumer.audit order by number limit 2") == [
        ("skip", "a drill"),
        ("drop_key", "told twice"),
    ]


async def test_a_key_is_released_without_the_name_of_its_topic(lot: Commands) -> None:
    """As its page shows it, also of a consumer that reads several."""
    several = replace(lot, env=consumer_environment(bootstrap_servers="127.0.0.1:1", dsn=lot.dsn))

    code, out, err = await several("parked retry", KEY, "--actor", "ann")

    assert (code, out.startswith(f"retry {KEY}  {TOPIC}/"), out.endswith("  refused\n")) == (0, True, True), err
    asked = "select key, release_requested_by from drx_consumer.parked_key where release_requested_at <= now()"
    assert lot.rows(asked) == [(KEY, "ann")]
    assert lot.rows("select actor, verb, key from drx_consumer.audit") == [("ann", "retry", KEY)]
    assert (await several("parked retry", "rx_2"))[0] == 2


@pytest.fixture
async def desk(postgres: str, tmp_path: Path) -> Commands:
    """A consumer whose tables exist, but that has no position."""
    env = consumer_environment(
        bootstrap_servers="127.0.0.1:1",
        dsn=postgres,
        env=install_code(tmp_path, "desk", CODE),
        KAFKA__OFFSET_RESET="none",
    )
    desk = Commands("desk", env, postgres)
    assert (await desk("init"))[0] == 0
    return desk


async def checks(desk: Commands) -> list[tuple[str, str, str]]:
    _, out, _ = await desk("doctor", "--json")
    found = json.loads(out)["checks"]
    wanted = [each for each in found if each["check"] in {"init", "parking"}]
    return [(each["verdict"], each["message"], each["advice"]) for each in wanted]


async def test_doctor_finds_what_a_start_would_refuse_and_what_is_parked(desk: Commands) -> None:
    assert await checks(desk) == [("failed", "not initialised", "drx-consumer init desk --from earliest|latest|TIME")]

    execute(
        desk.dsn,
        "insert into drx_consumer.progress (grp, topic, part, next_offset, epoch) values ('desk', 't', 0, 3, 1)",
        "insert into drx_consumer.parked_key (grp, topic, key, part, class, code, attempts)"
        " values ('desk', 't', 'rx_1', 0, 'bug', 'unexpected', 1)",
        "insert into drx_consumer.park_breaker (grp, opened_at) values ('desk', '2026-09-14T15:00:00Z')",
    )

    resume = "drx-consumer parked resume desk --reason …"
    assert await checks(desk) == [
        ("failed", "park limit open since 2026-09-14 15:00:00Z: nothing is handled until it is resumed", resume),
        ("warning", "parked keys: 1, records: 0", "drx-consumer parked list desk"),
    ]
    code, out, err = await desk("parked list")
    assert (code, f"`{resume}`" in err) == (0, True)
    assert out.split()[:8] == ["key", "partition", "class", "code", "attempts", "events", "parked_at", "release"]
    assert (await desk("parked resume", "--reason", "a drill"))[1] == "resume group desk\n"


async def test_a_key_that_is_not_parked_is_an_error_to_show_and_to_retry(desk: Commands) -> None:
    shown = await desk("parked show", "rx_1")
    one = await desk("parked retry", "rx_1")
    both = await desk("parked retry", "rx_1", "rx_2")

    assert [(code, out) for code, out, _ in (shown, one, both)] == [(2, "")] * 3
    assert [spoken(err) for _, _, err in (shown, one, both)] == [
        "drx-consumer: no record of that key is parked\n",
        "drx-consumer: that key is not parked\n",
        "drx-consumer: none of these 2 keys is parked\n",
    ]
