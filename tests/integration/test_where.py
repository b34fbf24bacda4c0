"""`drx-consumer where`: an event in every state is where the test has put it, and nothing of it is shown."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner

from bridge.contract.native import native_json
from bridge.event import Delivery, ParkReason
from bridge.kafka.partition_writer import pack
from bridge.kafka.record import UNRECOGNIZED_SCHEMA, Record, unrecognized_record, unrecognized_value
from bridge.registry.loader import bundled
from bridge.registry.masker import Masker
from bridge.spool.segment import Entry
from consumers.cli import cli
from tests.audit_lines import acts
from tests.cluster import Cluster, Topics
from tests.integration.consumer_process import ConsumerProcess, consumer_environment, drx_consumer, install_code
from tests.integration.ingress_process import IngressProcess, deliver
from tests.integration.service_process import until
from tests.originals import codec
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
    """Two groups that have read three of the four lives, and one has parked two of them."""

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


async def test_an_event_is_where_it_was_put_and_nothing_of_it_is_shown(scene: Scene, tmp_path: Path) -> None:
    """One story, since the scene takes its time."""
    await one_event_has_the_fixed_members_and_nothing_of_its_content(scene)
    await every_event_of_a_prescription_has_its_state(scene)
    await what_never_became_an_event_and_what_waits_on_this_disk_are_found(scene, tmp_path)


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
    assert await scene("evt_of_nobody") == (1, {}, "nothing is known of that id\n")


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

    code, whole, err = await scene(event_id, "--show-phi")
    assert whole["value"]["prescription_id"] == event.key
    assert acts(err) == [("where", "begun"), ("where", "done")]
    _, people, _ = await drx_consumer(scene.env, "where", event_id)
    _, of_key, _ = await drx_consumer(scene.env, "where", event.key)
    assert all(word in people for word in (scene.topic, event_id, "slot", "filler:", "refused"))
    shown = json.dumps(document) + people + of_key
    assert [value for each in LIVES.events(PARKED) for value in canaries(each) if value in shown] == []


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


async def spool(directory: Path, topic: str, *event_ids: str) -> None:
    like, *_ = LIVES.records(topic, partitions=2)
    async with open_spool(directory) as kept:
        for number, event_id in enumerate(event_ids, 1):
            headers = [(name, event_id.encode() if name == "ce_id" else text) for name, text in like.headers]
            payload = pack(like._replace(key=event_id.encode(), headers=headers))
            await kept.spool.append([Entry(number, 1_700_000_000_000, (topic, like.partition), payload)])


def unrecognized(delivery_id: str) -> Record:
    body = b'{"data":{"patient":{"last_name":"CANARY"}}}'
    now = datetime.now(UTC)
    delivery = Delivery("drx", "sandbox", delivery_id, now, body, sha256(body).hexdigest(), "current", "", {})
    reason = ParkReason("unusable", "missing_field", "/data/fill_status")
    value = codec().encode(UNRECOGNIZED_SCHEMA, unrecognized_value(delivery, reason))
    return unrecognized_record(delivery, reason, partition=0, value=value)


def canaries(event: Any) -> list[str]:
    """Texts of the fields of classes D and L that stand in no name of a type."""
    record = f"drx.v1.{type(event.typed()).__name__}"

    def hidden(value: Any, masked: Any) -> Iterator[str]:
        if masked == "***":
            yield from [value] if isinstance(value, str) else []
            masked = dict.fromkeys(value, "***") if isinstance(value, dict) else masked
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from hidden(inner, masked[name])

    found = hidden(event.value, Masker(bundled().schemas(), mask="***").mask(record, event.value))
    return [value for value in found if len(value) > 3 and value not in event.type]


# Heads that are parked stay below the park limit.
MANY = Lives(150)
FATES = {
    "parked": range(6),
    "given_up": range(6, 12),
    "released": range(12, 18),
    "pruned": range(18, 46),
    "behind": range(46, 61),
    "late": range(61, 76),
    "refused": range(76, 80),
    "not_sent": range(80, 84),
    "applied": range(84, MANY.prescriptions),
}
UNKNOWN = ("refused", "not_sent")
# Of those that are in no group's way: in the spool, and not recognized.
KEPT = 40
# Words of the command's own that some texts of the lives consist of.
OWN_WORDS = {"received"}
SETTLED = "select coalesce(sum(next_offset), 0)::int from drx_consumer.progress where grp = '{}'"
PARKED_OF = "select count(*)::int from drx_consumer.parked_key where key = any (array{})"
AGED = """
update read_model.event set received_at = received_at - interval '900 days' where prescription_id = any (array{0});
update read_model.prescription set last_event_at = last_event_at - interval '900 days'
where prescription_id = any (array{0});
update drx_consumer.inbox i set settled_at = e.received_at from read_model.event e
where e.event_id = i.event_id and e.prescription_id = any (array{0}) and i.grp = 'read_model'
"""
# As consumers/read_model/README.md has it.
ENDED = """
select prescription_id from read_model.prescription
where prescription_id = any (array{}) and open_requests = '{{}}' and cancel_pending_since is null and safety = '{{}}'
  and (order_status in ('cancelled', 'replaced', 'rejected') or shipment = 'delivered'
    or dispense in ('dispensed', 'not_dispensed', 'transferred'))
"""


class Crowd:
    """A thousand events, each with a fate that only the test knows."""

    def __init__(self, bootstrap_servers: str, dsn: str, topic: str, directory: Path) -> None:
        self.keys = {fate: [MANY.prescription_id(number) for number in numbers] for fate, numbers in FATES.items()}
        self.topic, self._dsn, self._directory = topic, dsn, directory
        self._records = list(MANY.records(topic, partitions=2))
        self._written = 0
        self._given: dict[str, Any] = {"bootstrap_servers": bootstrap_servers, "dsn": dsn, "READ_MODEL__TOPICS": topic}
        self._env = consumer_environment(**self._given) | {"BRIDGE_SPOOL__DIR": str(directory / "spool")}

    def write(self, *fates: str) -> None:
        of = {key.encode() for fate in fates for key in self.keys[fate]}
        self._written += fill(self._given["bootstrap_servers"], (each for each in self._records if each.key in of))

    def ask(self, *arguments: str) -> tuple[int, str]:
        """Ask in this process: a thousand of its own would take half an hour."""
        result = CliRunner().invoke(cli, ["where", *arguments], env=self._env, standalone_mode=False)
        assert result.exception is None
        return result.return_value, result.stdout

    def command(self, *arguments: str) -> None:
        code, _, err = asyncio.run(drx_consumer(self._env, *arguments))
        assert code == 0, err

    def settle(self, name: str, *, done: str = "", refused: tuple[str, ...] = ()) -> None:
        """Run a consumer until it has settled all, or the query counts nothing."""
        keys = [key for fate in refused for key in self.keys[fate]]
        code = CODE.format(topic=self.topic, refused=keys)
        env = install_code(self._directory / "-".join((name, *refused)), "desk", code)
        self._env |= env  # operators decide about it, too
        query, wanted = (done, 0) if done else (SETTLED.format(name), self._written)
        with ConsumerProcess(self._directory, name, env=env, **self._given) as process:
            process.ready()
            until(lambda: execute(self._dsn, query) == [[(wanted,)]], what=f"{name} has settled")

    def prune(self) -> set[str]:
        execute(self._dsn, *AGED.format(self.keys["pruned"]).split(";"))
        gone = {key for (key,) in execute(self._dsn, ENDED.format(self.keys["pruned"]))[0]}
        self.command("prune", "read_model", "--older-than", "800d")
        # The records themselves could not be made older.
        execute(self._dsn, "update drx_consumer.audit set code = now()::text where verb = 'prune'")
        return gone

    def stage(self) -> set[str]:
        """Bring each to where it ends; return the keys that are pruned."""
        self.write("parked", "given_up", "released", "pruned", "applied")
        self.settle("desk", refused=("parked", "given_up", "released"))
        for key in self.keys["given_up"]:
            events = json.loads(self.ask(key, "--json")[1])["events"]
            head = next(each for each in events if each["groups"]["desk"].get("code") == "refused")
            self.command("parked", "skip", "desk", key, "--offset", str(head["offset"]), "--reason", "x")
        self.command("parked", "retry", "desk", *self.keys["released"])
        self.settle("desk", refused=("parked", "given_up"), done=PARKED_OF.format(self.keys["released"]))
        self.write("behind")
        self.settle("read_model")
        self.write("late")
        return self.prune()


@pytest.mark.faults
def test_a_thousand_events_are_where_they_were_put(
    cluster: Cluster, topics: Topics, postgres: str, tmp_path: Path
) -> None:
    """Not sent, refused, spooled, not recognized, waiting for one group or both, parked, skipped, released, pruned."""
    topics.standard()
    crowd = Crowd(cluster.bootstrap_servers, postgres, topics.fresh(partitions=2), tmp_path)
    gone = crowd.stage()
    assert len(gone) > 1
    places = {f"dlv_{number}": "drx.unrecognized.v1" for number in range(KEPT)}
    fill(cluster.bootstrap_servers, map(unrecognized, places))
    spooled = [f"evt_spooled_{number}" for number in range(KEPT)]
    asyncio.run(spool(tmp_path / "spool", crowd.topic, *spooled))
    places |= dict.fromkeys(spooled, crowd.topic)
    asyncio.run(refuse(cluster.bootstrap_servers, tmp_path / "ingress"))

    events = 0
    for fate, numbers in FATES.items():
        for number in numbers:
            key, ids = MANY.prescription_id(number), MANY.event_ids(number)
            if fate in UNKNOWN or key in gone:
                assert [crowd.ask(wanted, "--json") for wanted in (key, *ids)] == [(1, "")] * (len(ids) + 1)
            if fate not in UNKNOWN:
                shows_all(crowd, number, "gone" if key in gone else fate)
            events += len(ids)
    for wanted, place in places.items():
        code, out = crowd.ask(wanted, "--json")
        document = json.loads(out)
        assert (code, document["topic"], document["groups"], "CANARY" in out) == (0, place, {}, False)
        assert (document["offset"] is None) == (wanted in spooled)
    assert events + len(places) > 1_000


def shows_all(crowd: Crowd, number: int, fate: str) -> None:
    """Each event of a prescription is where it should be, and no text of it is shown."""
    key, ids = MANY.prescription_id(number), MANY.event_ids(number)
    whole = ["--from-beginning"] if fate == "gone" else []
    (code, out), (of_one, people) = crowd.ask(key, "--json", *whole), crowd.ask(ids[0], *whole)
    found = json.loads(out)["events"]
    states = [{group: (each["state"], each.get("code")) for group, each in event["groups"].items()} for event in found]

    assert (code, of_one, [each["id"] for each in found]) == (0, 0, ids)
    assert states == expected(fate, number), (fate, number)
    hidden = {value for event in MANY.events(number) for value in canaries(event)} - OWN_WORDS
    assert hidden
    assert [value for value in hidden if value in out + people] == []


def expected(fate: str, number: int) -> list[dict[str, tuple[str, str | None]]]:
    handled = [event.type.startswith(HANDLED) for event in MANY.events(number)]
    head = handled.index(True)
    waiting, other, behind = ("waiting", None), ("skipped", "not_handled"), ("parked", "key_parked")
    of_head = {"parked": ("parked", "refused"), "given_up": ("skipped", "refused")}.get(fate)

    def desk(at: int) -> tuple[str, str | None]:
        if fate in {"behind", "late"}:
            return waiting
        if not handled[at]:
            return other
        if of_head is None:
            return "applied", None
        return of_head if at == head else behind

    read_model = {"late": waiting, "gone": ("applied", "pruned")}.get(fate, ("applied", None))
    return [{"read_model": read_model, "desk": desk(at)} for at in range(len(handled))]


async def refuse(bootstrap_servers: str, directory: Path) -> None:
    with IngressProcess(directory, bootstrap_servers) as ingress:
        ingress.ready()
        async with aiohttp.ClientSession() as session:
            for number in FATES["refused"]:
                for event in MANY.events(number):
                    body = native_json(event.value)
                    reply = await deliver(session, ingress, body, webhook_id=event.id, webhook_signature="v1,AAAA")
                    assert reply.status == 401
