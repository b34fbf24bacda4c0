import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from bridge.event import ParkReason
from bridge.kafka.record import UNRECOGNIZED_SCHEMA, Record, unrecognized_record, unrecognized_value
from bridge.spool.payload import pack
from bridge.spool.segment import Entry
from tests.audit_lines import acts
from tests.builders import a_delivery, codec
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer, install_code
from tests.integration.service_process import until
from tests.postgres import execute
from tests.spooling import open_spool
from tests.topic_filler import Lives, fill

pytestmark = pytest.mark.kafka

LIVES = Lives(4)
APPLIED, PARKED, GIVEN_UP, LATE = range(4)
CODE = """
from consumers.api import Consumer, Lanes
from bridge.errors import PermanentError
consumer = Consumer(name="desk", topics=["{topic}"], mode=Lanes(4), types=["prescription.*", "fill.*"])
@consumer.handler
async def handle(event, context):
    if event.key in {refused!r}:
        raise PermanentError("refused")
"""
HANDLED = ("prescription.", "fill.")


@dataclass(frozen=True, slots=True)
class Scene:
    bootstrap_servers: str
    topic: str
    env: dict[str, str]

    async def __call__(self, wanted: str, *arguments: str, **more: str) -> tuple[int, dict[str, Any], str]:
        code, out, err = await drx_consumer(self.env | more, "where", wanted, "--json", *arguments)
        return code, json.loads(out) if out else {}, err

    async def states(self, prescription: int) -> list[dict[str, tuple[str, str | None]]]:
        code, document, err = await self(LIVES.prescription_id(prescription))
        assert code == 0, err
        assert [each["id"] for each in document["events"]] == LIVES.event_ids(prescription)
        return [
            {group: (each["state"], each.get("code")) for group, each in event["groups"].items()}
            for event in document["events"]
        ]


@pytest.fixture
def scene(cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path) -> Scene:
    topics.standard()
    topic = topics.fresh(partitions=2)
    refused = [LIVES.prescription_id(number) for number in (PARKED, GIVEN_UP)]
    late = LIVES.prescription_id(LATE).encode()
    records = list(LIVES.records(topic, partitions=2))
    given: dict[str, Any] = {
        "bootstrap_servers": cluster.bootstrap_servers,
        "dsn": postgres,
        "env": install_code(tmp_path / "package", "desk", CODE.format(topic=topic, refused=refused)),
        "READ_MODEL__TOPICS": topic,
    }
    written = fill(cluster.bootstrap_servers, (each for each in records if each.key != late))
    settled = "select coalesce(sum(next_offset), 0) from drx_consumer.progress where grp = '{}'"
    for name in ("read_model", "desk"):
        with ConsumerProcess(tmp_path, name, **given) as process:
            process.ready()
            until(lambda: execute(postgres, settled.format(name)) == [[(written,)]], what="all settled")  # noqa: B023 - as above
    fill(cluster.bootstrap_servers, (each for each in records if each.key == late))
    return Scene(cluster.bootstrap_servers, topic, consumer_environment(**given))


async def test_an_event_is_where_it_was_put_and_nothing_of_it_is_shown(
    scene: Scene, tmp_path: Path, postgres: str
) -> None:
    """One story, since the scene takes its time."""
    await one_event_has_the_fixed_members_and_nothing_of_its_content(scene)
    await every_event_of_a_prescription_has_its_state(scene)
    await what_never_became_an_event_and_what_waits_on_this_disk_are_found(scene, tmp_path)
    await a_vendor_s_number_needs_no_prefix_unless_two_vendors_have_it(scene, tmp_path, postgres)
    await in_a_topic_that_was_made_anew_an_event_is_found_and_its_groups_are_stopped(scene)


async def a_vendor_s_number_needs_no_prefix_unless_two_vendors_have_it(
    scene: Scene, tmp_path: Path, postgres: str
) -> None:
    rename = "update read_model.event set source = '{0}', prescription_id = '{0}:77' where prescription_id = '{1}'"
    execute(postgres, rename.format("acme", LIVES.prescription_id(APPLIED)))

    code, document, _ = await scene("77")
    assert (code, [each["id"] for each in document["events"]]) == (0, LIVES.event_ids(APPLIED))
    disk = {"BRIDGE_SPOOL__DIR": str(tmp_path / "spool-of-numbers")}
    await spool(tmp_path / "spool-of-numbers", scene.topic, "acme:78", "ds:78", "acme:79")
    assert (await scene("79", **disk))[0] == 0
    several = "several vendors have this number; write it with one of the prefixes acme:, ds:"
    code, _, err = await scene("78", **disk)
    assert (code, several in err) == (2, True)
    assert (await scene("ds:78", **disk))[0] == 0
    execute(postgres, rename.format("ds", LIVES.prescription_id(PARKED)))
    code, _, err = await scene("77")
    assert (code, several in err) == (2, True)


async def every_event_of_a_prescription_has_its_state(scene: Scene) -> None:
    types = [event.type for event in LIVES.events(APPLIED)]
    handled = [event_type.startswith(HANDLED) for event_type in types]
    given_up = LIVES.event_ids(GIVEN_UP)[0]
    key = LIVES.prescription_id(GIVEN_UP)
    offset = str((await scene(given_up))[1]["offset"])
    assert (await drx_consumer(scene.env, "parked", "skip", "desk", key, "--offset", offset, "--reason", "x"))[0] == 0

    assert await scene.states(APPLIED) == [
        {"read_model": ("applied", None), "desk": ("applied", None) if wanted else ("skipped", "not_handled")}
        for wanted in handled
    ]
    behind = ("parked", "key_parked")
    parked, *others = await scene.states(PARKED)
    assert parked == {"read_model": ("applied", None), "desk": ("parked", "refused")}
    assert {each["desk"] for each in others} <= {behind, ("skipped", "not_handled")}
    assert behind in {each["desk"] for each in others}
    assert (await scene.states(GIVEN_UP))[0]["desk"] == ("skipped", "refused")
    assert {state for each in await scene.states(LATE) for state in each.values()} == {("waiting", None)}
    nothing = "nothing has that id; if it was refused, see `drx-bridge log --failed`\n"
    assert await scene("evt_of_nobody") == (1, {}, nothing)


async def one_event_has_the_fixed_members_and_nothing_of_its_content(scene: Scene) -> None:
    (event, *_), event_id = LIVES.events(PARKED), LIVES.event_ids(PARKED)[0]
    code, document, _ = await scene(event_id)

    assert code == 0
    assert document.keys() == {"received", "topic", "partition", "offset", "groups"}
    assert datetime.fromisoformat(document["received"]) == event.received_at
    assert document["topic"] == scene.topic
    parked = document["groups"]["desk"]
    assert parked["records"] > 0
    assert datetime.fromisoformat(parked["at"])

    names = [dict(each.headers) for each in LIVES.records(scene.topic, partitions=2)]
    (digest,) = [each["drx_body_sha256"].decode() for each in names if each["ce_id"] == event_id.encode()]
    code, by_body, _ = await scene(f"dlv_{digest[:32]}")
    assert (code, by_body["offset"]) == (0, document["offset"])
    code, whole, err = await scene(event_id, "--show-phi")
    assert whole["value"]["prescription_id"] == event.key
    assert acts(err) == [("where", "begun"), ("where", "done")]
    _, people, _ = await drx_consumer(scene.env, "where", event_id)
    _, of_key, _ = await drx_consumer(scene.env, "where", event.key)
    assert all(word in people for word in (scene.topic, event_id, "slot", "filler:", "refused"))
    shown = json.dumps(document) + people + of_key
    patient: Any = event.value["patient"]
    hidden = (patient["last_name"], patient["first_name"], patient["phone"], str(patient["date_of_birth"]))
    assert [text for text in hidden if text in shown] == []


async def what_never_became_an_event_and_what_waits_on_this_disk_are_found(scene: Scene, tmp_path: Path) -> None:
    fill(scene.bootstrap_servers, [unrecognized("dlv_where")])
    await spool(tmp_path / "spool", scene.topic, "evt_spooled")
    disk = {"BRIDGE_SPOOL__DIR": str(tmp_path / "spool")}

    code, document, _ = await scene("dlv_where")
    assert (code, document["topic"], document["groups"]) == (0, "drx.unrecognized.v1", {})
    assert document["unrecognized"] == {"reason": "unusable", "detail": "missing_field", "field": "/data/fill_status"}
    code, document, err = await scene("evt_spooled", **disk)
    assert (code, document["topic"], document["offset"], document["groups"]) == (0, scene.topic, None, {})
    code, _, err = await scene("evt_spooled", **disk, BRIDGE_SPOOL__KEY_DIR=str(tmp_path))
    assert (code, "some records cannot be read" in err) == (1, True)
    away = {"CONSUMER_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    code, document, err = await scene("evt_spooled", **disk, **away)
    assert (code, document["offset"], "no broker answers" in err) == (0, None, True)
    code, document, err = await scene("evt_of_nobody", **disk, **away)
    assert (code, document, "no broker answers" in err) == (2, {}, True)


async def in_a_topic_that_was_made_anew_an_event_is_found_and_its_groups_are_stopped(scene: Scene) -> None:
    execute(scene.env["CONSUMER_POSTGRES__DSN"], "update drx_consumer.progress set next_offset = 1000000")

    code, document, _ = await scene(LIVES.event_ids(LATE)[0])
    stopped = {"state": "stopped", "code": "offset_beyond_end"}
    assert (code, document["groups"]) == (1, {"read_model": stopped, "desk": stopped})
    code, people, _ = await drx_consumer(scene.env, "where", LIVES.event_ids(LATE)[0])
    assert (code, people.count("stopped: beyond the end")) == (1, 2)


async def spool(directory: Path, topic: str, *event_ids: str) -> None:
    like, *_ = LIVES.records(topic, partitions=2)
    async with open_spool(directory) as kept:
        for number, event_id in enumerate(event_ids, 1):
            headers = [(name, event_id.encode() if name == "ce_id" else text) for name, text in like.headers]
            payload = pack(*like._replace(key=event_id.encode(), headers=headers)[2:])
            await kept.spool.append([Entry(number, 1_700_000_000_000, (topic, like.partition), payload)])


def unrecognized(delivery_id: str) -> Record:
    delivery = a_delivery(id=delivery_id)._replace(received_at=datetime.now(UTC))
    reason = ParkReason("unusable", "missing_field", "/data/fill_status")
    value = codec().encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, reason))
    return unrecognized_record(delivery, reason, partition=0, value=value)
