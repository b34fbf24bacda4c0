"""`drx-consumer prune` next to a read model under load: it deletes only ended history, and kept ids stay known."""

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.kafka.record import Record
from consumers.read_model.history import prunable
from consumers.testing import an_event
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer
from tests.integration.service_process import until
from tests.postgres import execute
from tests.prescriptions import renewal_answered, renewal_asked, renewal_closed
from tests.read_model import ReadModel
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

FIRST, ALL = Lives.of_records(800), Lives.of_records(1_200)
SETTLED = "select coalesce(sum(next_offset), 0)::int from drx_consumer.progress where grp = 'read_model'"
COUNTS = "select count(*)::int, sum(events)::int from read_model.prescription"
# Every second prescription is two years old.
AGE = """
update read_model.event set received_at = received_at - interval '600 days' where hashtext(prescription_id) % 2 = 0;
update read_model.prescription set last_event_at = last_event_at - interval '600 days'
where hashtext(prescription_id) % 2 = 0;
update drx_consumer.inbox i set settled_at = e.received_at from read_model.event e where e.event_id = i.event_id
"""
# As consumers/read_model/README.md has it.
OLD_AND_ENDED = """
select event_id, partition, "offset" from read_model.event join read_model.prescription using (prescription_id)
where hashtext(prescription_id) % 2 = 0 and open_requests = '{}' and cancel_pending_since is null and safety = '{}'
  and (order_status in ('cancelled', 'replaced', 'rejected') or shipment = 'delivered'
    or dispense in ('dispensed', 'not_dispensed', 'transferred'))
"""


async def test_only_what_has_ended_goes_and_what_is_kept_is_known(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    topics.standard()
    topic = topics.fresh(partitions=2)
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "READ_MODEL__TOPICS": topic,
    }
    env = consumer_environment(**given)
    records = list(ALL.records(topic, partitions=2))
    known = {event_id for number in range(FIRST.prescriptions) for event_id in FIRST.event_ids(number)}
    written = fill(cluster.bootstrap_servers, (each for each in records if event_id(each) in known))
    with ConsumerProcess(tmp_path, "read_model", **given) as read_model:
        read_model.ready()
        until(lambda: execute(postgres, SETTLED) == [[(written,)]], what="the first ones")
        execute(postgres, *AGE.split(";"))
        goes = archived(postgres, topic, half=written // 4)
        assert written // 10 < len(goes) < written // 2

        load = [each for each in records if event_id(each) not in goes]
        filling = asyncio.create_task(asyncio.to_thread(fill, cluster.bootstrap_servers, load))
        prune = ("prune", "read_model", "--older-than", "400d", "--json")
        counted = json.loads((await drx_consumer(env, *prune, "--dry-run"))[1])
        assert counted["history"] == len(goes) <= counted["inbox"] < written
        code, out, err = await drx_consumer(env, *prune)
        written += await filling
        assert code == 0, err
        assert (json.loads(out)["history"], json.loads(out)["inbox"]) == (len(goes), len(goes))
        until(lambda: execute(postgres, SETTLED) == [[(written,)]], what="the load")

        # The load has each kept event a second time, and none was applied again.
        assert ids(postgres, "select event_id from read_model.event") == {event_id(each) for each in records} - goes
        assert execute(postgres, COUNTS) == [[(ALL.prescriptions, ALL.count)]]

        # The record itself could not be made older.
        execute(postgres, "update drx_consumer.audit set code = now()::text where verb = 'prune'")
        gone = min(goes)
        code, out, _ = await drx_consumer(env, "where", gone, "--from-beginning", "--json")
        assert (code, json.loads(out)["groups"]["read_model"]) == (0, {"state": "applied", "code": "pruned"})
        assert (await drx_consumer(env, "where", gone))[0] == 1

        written += fill(cluster.bootstrap_servers, (each for each in records if event_id(each) in goes))
        until(lambda: execute(postgres, SETTLED) == [[(written,)]], what="repeats from beyond the horizon")
    assert ids(postgres, "select event_id from read_model.event") == {event_id(each) for each in records}
    assert execute(postgres, COUNTS) == [[(ALL.prescriptions, ALL.count + len(goes))]]


def archived(dsn: str, topic: str, *, half: int) -> set[str]:
    """Have an archive that has half of partition 0, but one record, which it has parked; return what may go."""
    rows = [tuple(row) for row in execute(dsn, OLD_AND_ENDED)[0]]
    has = {found: offset for found, part, offset in rows if part == 1 or offset < half}
    parked = next(found for found, part, offset in rows if part == 0 and offset < half)
    execute(
        dsn,
        "insert into drx_consumer.progress (grp, topic, part, next_offset)"  # noqa: S608 - names and numbers of ours
        f" values ('archive', '{topic}', 0, {half}), ('archive', '{topic}', 1,"
        ' (select max("offset") + 1 from read_model.event where partition = 1))',
        "insert into drx_consumer.parked_key (grp, topic, key, part, class, code, attempts)"  # noqa: S608 - as above
        f" values ('archive', '{topic}', 'k', 0, 'bug', 'unexpected', 1)",
        "insert into drx_consumer.parked_event select 'archive', topic, partition, \"offset\", 'k', 0, null, null,"  # noqa: S608 - as above
        f" '[]', source, event_id, event_type, '', 'bug', 'x', 1 from read_model.event where event_id = '{parked}'",
    )
    return has.keys() - {parked}


def event_id(record: Record) -> str:
    return dict(record.headers)["ce_id"].decode()


def ids(dsn: str, query: str) -> set[str]:
    return {found for (found,) in execute(dsn, query)[0]}


async def test_a_question_that_matches_no_prescription_stays_until_it_is_answered_and_its_answer_as_long(
    model: ReadModel,
) -> None:
    asked, answered = (
        renewal_asked(at, key=f"req:{name}", request_id=name, prescription_id=None)
        for at, name in enumerate(("r1", "r2"))
    )
    closed = renewal_closed(2, reason="expired", key="req:r2", request_id="r2", prescription_id=None)
    unclear = [
        renewal_asked(3, key="req:r3", request_id="r3", prescription_id=None),
        renewal_answered(4, decision="UNKNOWN", key="req:r3", request_id="r3", prescription_id=None),
    ]
    kept = [each.id for each in unclear]
    await model.apply(asked, answered, closed, *unclear, an_event("prescriber.enrollment_changed"))
    left = [await pruned(model) for _ in range(3)]

    assert left == [[asked.id, closed.id, *kept], [asked.id, *kept], [asked.id, *kept]]


async def pruned(model: ReadModel) -> list[str]:
    """Delete events that the condition allows, of any age; return the remaining ones in order."""
    rows = prunable(model.schema)
    where = f"{rows.condition} and t.{rows.time} between $1 and $2"
    delete = f"delete from {rows.table} where ctid = any (array(select t.ctid from {rows.table} t where {where}))"  # noqa: S608 - of ours
    latest = datetime(2100, 1, 1, tzinfo=UTC)
    await model.rows(delete, datetime(2000, 1, 1, tzinfo=UTC), latest, latest)
    return [row["event_id"] for row in await model.rows("select event_id from {schema}.event order by occurred_at, 1")]
