"""Consumers in a world: a log from a world of the ingress, members of three groups, faults, and operators.

plan        `make_plan`: which kinds of acts exist, and every act; records come in bursts
real code   `Worker`: `Processor`, `Subscriber`, `Member` and `Jobs` of `consumers.runtime`, and the consumers
seams       `postgres` (sessions of a real server), `group` (a member's client), `sinks`, the loop's clock
checks      `effects`: each by a name of `EFFECTS`
"""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache, partial
from itertools import count
from math import ceil
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from bridge.errors import BridgeError
from bridge.kafka.consumed_record import ConsumedRecord, TopicPartition
from bridge.kafka.routing import UNRECOGNIZED_TOPIC
from bridge.runtime.logging import LEVELS, log
from consumers.app import ConsumerWorker, Seams
from consumers.postgres.migrate import migrate_tables
from consumers.postgres.pool import open_database
from consumers.runtime import operator
from consumers.runtime.ledger import Ledger
from consumers.runtime.metrics import ConsumerMetrics
from consumers.runtime.operator import By
from consumers.runtime.parking import Filters
from consumers.runtime.processor import Processor
from consumers.settings import ConsumerShutdownSettings
from tests.fake_transport import FakeKafka
from tests.postgres import execute
from tests.simulation import story
from tests.simulation.effects import Effects, placed
from tests.simulation.group import CLUSTER, SESSION_S, Group, Member
from tests.simulation.kafka import Connection, Kafka
from tests.simulation.loop import Process
from tests.simulation.operators import Act, Plan
from tests.simulation.operators import make_plan as ingress_plan
from tests.simulation.postgres import Postgres, Server
from tests.simulation.promises import Broken, Promises, Where
from tests.simulation.sinks import DECODER, GROUPS, NOTES, PUBLISHING, TABLES, Sinks
from tests.simulation.world import World

PHASES = 2
PHASE_S = 40.0
LONGEST_S = 60.0  # that a fault lasts
REST_S = 900.0
LOOK_EVERY_S = 5  # between two looks at what processes hold
# Worlds that share the log of one world of the ingress, each a part of it.
WORLDS_OF_A_LOG = 6
POISONED = 0.02
WORKERS = 2  # of each group
ANN = By("ann", "a drill")
_SETTLED = "select topic, part, next_offset from drx_consumer.progress where grp = $1 and next_offset is not null"
_PARKED = """
select topic, key, "offset", part from drx_consumer.parked_event
where grp = $1 and {} order by 1, 4, 3
"""
_LASTING = "(code = 'id_conflict' or class = 'poison')"


def _for(rng: random.Random) -> float:
    return round(rng.choice((rng.uniform(0.1, 3), rng.uniform(2, 12), rng.uniform(8, LONGEST_S))), 3)


def _share(most: float) -> Callable[[random.Random], tuple[Any, ...]]:
    return lambda rng: (round(rng.uniform(most / 20, most), 4), _for(rng))


def _worker(rng: random.Random) -> tuple[Any, ...]:
    return rng.choice(GROUPS), rng.randrange(WORKERS), _for(rng)


# By kind: its arguments, drawn from the plan's chance. One with a point only changes an attribute for a while.
KINDS: Mapping[str, Callable[[random.Random], tuple[Any, ...]]] = {
    **dict.fromkeys(("kill", "stop", "freeze"), _worker),
    "kill_soon": lambda rng: (rng.randrange(200), *_worker(rng)),
    "kafka_away": lambda rng: (rng.choice(GROUPS), _for(rng)),
    "database": lambda rng: (rng.choice(("refusing", "silent")), _for(rng)),
    **dict.fromkeys(("postgres.cuts", "postgres.fails"), _share(0.1)),
    "postgres.slow_s": _share(2.0),
    "sinks.state": lambda rng: (rng.choice(("away", "late", "503", "429", "500")), _for(rng)),
    "sinks.slow_s": _share(12.0),
    "sinks.lost_answers": _share(0.9),
    "notes.ack_s": _share(4.0),
    "notes.lost_answers": _share(0.9),
    "broker": lambda rng: (rng.randrange(3), rng.choice(("silent", "down")), _for(rng)),
    "backup": lambda _: (),
    "restore": lambda rng: (_for(rng),),
    **dict.fromkeys(("shake", "offsets_lost", "claim", "retry", "resume"), lambda rng: (rng.choice(GROUPS),)),
    **dict.fromkeys(("park", "skip", "drop", "move_back"), lambda rng: (rng.choice(GROUPS), rng.random())),
}
# What events are like; in the plan these are kinds, too.
HABITS = {"refused": 0.03, "bug": 0.01, "stumbles": 0.05, "slow": 0.1, "poison": 0.0, "publishing": 0.0}


def make_plan(seed: int) -> Plan:
    """Draw the kinds of actions of a world, and every action."""
    rng = random.Random(f"{seed} consumers")  # noqa: S311 - decides a test, guards nothing
    faults = rng.sample(sorted(KINDS), rng.choice((0, 1, 2, 2, 3, 3, 4, 6, 12)))
    share = rng.choice((0.2, 0.5, 0.8))
    kinds = [*faults, *(each for each in HABITS if rng.random() < share)]
    if not {"refused", "bug", "poison"}.isdisjoint(kinds) and rng.random() < 0.7:
        faults += ["retry"]
    acts: list[Act] = []
    for phase in range(PHASES):
        bursts = [rng.uniform(0, PHASE_S) for _ in range(rng.choice((1, 6, 30)))]
        acts += [Act(phase, round(at, 3), "records", (1 / PHASES / len(bursts),)) for at in bursts]
        around = rng.choice(bursts)
        for _ in range(rng.randrange(1, 7) if faults else 0):
            kind = rng.choice(faults)
            at = rng.choice((rng.uniform(0, PHASE_S), around + rng.uniform(0, 0.3), around + rng.expovariate(0.4)))
            acts.append(Act(phase, round(min(at, PHASE_S), 3), kind, KINDS[kind](rng)))
    acts.sort(key=lambda act: act[:3])
    return Plan(seed, 0, 0.0, spooling=False, kinds=[*dict.fromkeys(kinds)], acts=acts)


@lru_cache(maxsize=1)
def _world_of(seed: int) -> tuple[Sequence[ConsumedRecord], Mapping[Where, str], Sequence[Broken]]:
    """Run a world of the ingress: its records in the order of time, what it has acknowledged, what it has broken."""
    found: list[Promises] = []
    story.run(ingress_plan(seed), look=found.append)
    stored = [
        (at.visible_at, ConsumedRecord(*partition.tp, n, at.timestamp_ms, at.key, at.value, at.headers))
        for partition in found[0].kafka.partitions()
        for n, at in enumerate(partition.records)
        if partition.tp.topic != UNRECOGNIZED_TOPIC
    ]
    records = [record for _, record in sorted(stored, key=lambda each: (each[0], each[1][:3]))]
    return records, found[0].acknowledged, found[0].broken


def _part(log: Sequence[ConsumedRecord], plan: Plan) -> Sequence[ConsumedRecord]:
    """Return the records of some time as a log of their own; a few may have a value that nobody can read."""
    rng = random.Random(f"{plan.seed} part")  # noqa: S311 - of the seed
    ends: Counter[TopicPartition] = Counter()
    found = []
    number = plan.seed % WORLDS_OF_A_LOG
    for each in log[len(log) * number // WORLDS_OF_A_LOG : len(log) * (number + 1) // WORLDS_OF_A_LOG]:
        tp = TopicPartition(*each[:2])
        value = b"\xffpoison" if "poison" in plan.kinds and rng.random() < POISONED else each.value
        found.append(ConsumedRecord(*tp, ends[tp], each.timestamp_ms, each.key, value, each.headers))
        ends[tp] += 1
    return found


class Worker:
    """A process of a consumer, which can be restarted."""

    def __init__(self, scene: "Scene", group: Group, number: int) -> None:
        self.scene, self.world, self.group = scene, scene.world, group
        self.name = f"{group.name}{number}"
        self.process: Process | None = None
        self.worker: ConsumerWorker | None = None
        self.is_frozen = False
        self._starts = 0
        self._stop = asyncio.Event()

    def start(self) -> None:
        if self.process is None:
            self._starts += 1
            self.process = Process(self.world.loop, f"{self.name}.{self._starts}")
            self._stop, self.is_frozen = asyncio.Event(), False
            self.world.loop.create_task(self._live(self.process), context=self.process.context)

    def kill(self, again_s: float) -> None:
        if self.process is not None:
            self._end(again_s)

    def _end(self, again_s: float) -> None:
        assert self.process is not None
        self.process.end()
        self.scene.postgres.ended(self.process)
        self.process = self.worker = None
        self.world.later(again_s, self.start)

    def stop(self, again_s: float) -> None:
        self._stop.set()
        self.world.later(again_s, self.start)

    def freeze(self, for_s: float) -> None:
        process = self.process
        if process is not None and not self.is_frozen:
            self.is_frozen = True
            process.freeze()
            self.world.later(for_s, lambda: self._thaw(process))

    def _thaw(self, process: Process) -> None:
        if self.process is process:
            self.world.note(self.name, "goes on")
            self.is_frozen = False
            process.thaw()

    async def _live(self, process: Process) -> None:
        try:
            await self._work()
        except (BridgeError, BaseExceptionGroup) as exc:
            self.scene.effects.note("no_bug", self.name, "ends with", repr(exc))
        self.world.note(process.name, "has ended")
        if self.process is process:
            self._end(5.0)

    async def _work(self) -> None:
        scene, group = self.scene, self.group
        consumer, registry = scene.sinks.build(group.name)
        spread = self.world.stream(f"{self.name} {self._starts}").uniform
        seams = Seams(
            view=group.view,
            transport=lambda *_, **__: Member(group),
            processor=partial(Processor, spread=spread, release_poll_s=8.0),
        )
        kafka = SimpleNamespace(
            connection=Connection(kafka=scene.notes, host=self.name),
            bootstrap_servers="b0:9092",
            session_s=SESSION_S,
            offset_reset="earliest",
            accept_cluster_id=None,
        )
        postgres = SimpleNamespace(pool_size=8, address=lambda: "postgresql://b/worlds")
        settings: Any = SimpleNamespace(kafka=kafka, postgres=postgres, shutdown=ConsumerShutdownSettings())
        database, metrics = scene.postgres.database(8), ConsumerMetrics(registry, service=group.name)
        self.worker = ConsumerWorker(settings, consumer, database, DECODER, metrics, _seams=seams)
        await self.worker.run(self._stop)


class Scene:
    """The state of one world, and its actions; each kind of action that is not a setting is a method."""

    def __init__(self, world: World, plan: Plan, server: Server) -> None:
        self.world, self.plan = world, plan
        records, acknowledged, self.before = _world_of(plan.seed // WORLDS_OF_A_LOG)
        self.log = _part(records, plan)
        ours = placed(self.log)
        self.acknowledged = acknowledged.keys() - (placed(records).keys() - ours.keys())
        self.given = 0
        self.postgres = Postgres(world, server)
        self.database = self.postgres.database(2)  # of operators
        self.sinks = Sinks(
            world,
            {name: share for name, share in HABITS.items() if name in plan.kinds},
            publishing=not PUBLISHING.isdisjoint(plan.kinds),
        )
        self.effects = Effects(self)
        self.notes = Kafka(world, {NOTES: 2})  # where `desk` publishes
        self.notes.on_bug = partial(self.effects.note, "no_bug")
        self.logs: dict[TopicPartition, list[ConsumedRecord]] = {TopicPartition(*each[:2]): [] for each in records}
        self.groups: dict[str, Group] = {}
        for name in GROUPS:
            topics = self.sinks.build(name)[0].topics
            kafka = FakeKafka({})
            kafka.logs = {at: records for at, records in self.logs.items() if at.topic in topics}
            kafka.starts = dict.fromkeys(kafka.logs, 0)
            self.groups[name] = Group(world, kafka, name)
        self.workers = {
            (name, n): Worker(self, group, n) for name, group in self.groups.items() for n in range(WORKERS)
        }
        self.under_way = 0
        self.heals_at = 0.0  # loop time at which no fault lasts any more

    def do(self, act: Act) -> None:
        self.world.note("act", act.kind, *act.args)
        if act.args and isinstance(act.args[-1], float):
            self.heals_at = max(self.heals_at, self.world.loop.time() + act.args[-1])
        of, _, name = act.kind.partition(".")
        if name:
            value, for_s = act.args
            setattr(getattr(self, of), name, value)
            self.world.later(for_s, lambda: setattr(getattr(self, of), name, "up" if name == "state" else 0.0))
        elif act.kind in ("kill", "stop", "freeze"):
            group, number, for_s = act.args
            getattr(self.workers[group, number], act.kind)(for_s)
        else:
            getattr(self, f"_{act.kind}")(*act.args)

    def _records(self, share: float) -> None:
        """Append records to the log."""
        given = self.log[self.given : self.given + ceil(share * len(self.log))]
        self.given += len(given)
        for each in given:
            self.logs[TopicPartition(*each[:2])].append(each)
        for group in self.groups.values():
            group.kafka.news.set()

    def _kill_soon(self, turns: int, group: str, number: int, again_s: float) -> None:
        """Kill after some steps of the loop: at any await."""
        if turns:
            self.world.soon(lambda: self._kill_soon(turns - 1, group, number, again_s))
        else:
            self.workers[group, number].kill(again_s)

    def _shake(self, group: str) -> None:
        self.groups[group].shake()

    def _kafka_away(self, group: str, for_s: float) -> None:
        kafka = self.groups[group].kafka
        kafka.go_away()
        self.world.later(for_s, kafka.come_back)

    def _offsets_lost(self, group: str) -> None:
        self.groups[group].kafka.offsets.clear()

    def _broker(self, number: int, state: str, for_s: float) -> None:
        self.notes.set_state(number, state)
        self.world.later(for_s, lambda: self.notes.set_state(number, "up"))

    def _database(self, state: str, for_s: float) -> None:
        self.postgres.set_state(state)
        self.world.later(for_s, lambda: self.postgres.set_state("up"))

    # What operators do.

    def _backup(self) -> None:
        self.postgres.backup()

    def _restore(self, after_s: float) -> None:
        """Put back what was saved, under running members; restart these after a while, as the runbook has it."""
        self.postgres.restore()
        for group in GROUPS:
            self.world.later(after_s, partial(self._restart, group))

    def _restart(self, group: str) -> None:
        for number in range(WORKERS):
            self.workers[group, number].stop(1.0)

    def _claim(self, group: str) -> None:
        """Let another process claim every partition, and do nothing with it."""
        ledger = Ledger(self.database, group=group, cluster_id=CLUSTER)
        for tp in self.groups[group].kafka.logs:
            self._operate(ledger.claim(tp))

    def _retry(self, group: str) -> None:
        self._operate(operator.request_release(self.database, group, Filters(), by=ANN))

    def _resume(self, group: str) -> None:
        self._operate(operator.resume(self.database, group, ANN))

    def _park(self, group: str, chance: float) -> None:
        read = [each for each in self.log if TopicPartition(*each[:2]) in self.groups[group].kafka.logs]
        for topic, partition, _, _, key, *_ in read[int(chance * len(read)) :][:1]:
            name = (key or b"").decode()
            self._operate(operator.park(self.database, group, topic, name, partition=partition, by=ANN))

    def _skip(self, group: str, chance: float, *, whole: bool = False) -> None:
        rows = self.postgres.server.rows(_PARKED.format("true"), group)
        if rows:
            topic, key, offset, part = rows[int(chance * len(rows))]
            self._give_up(group, topic, key, None if whole else offset, part)

    def _drop(self, group: str, chance: float) -> None:
        self._skip(group, chance, whole=True)

    def _give_up(self, group: str, topic: str, key: str, offset: int | None, part: int) -> None:
        self._operate(operator.discard(self.database, group, topic, key, offset=offset, partition=part, by=ANN))

    def _move_back(self, group: str, chance: float) -> None:
        rows = self.postgres.server.rows(_SETTLED, group)
        offsets = {TopicPartition(topic, part): int(chance * offset) for topic, part, offset in rows}

        async def move() -> None:
            async with self.database.transaction() as connection:
                await operator.lock_progress(connection, group, sorted({at.topic for at in offsets}))
                if not await operator.parked_from(connection, group, offsets):
                    await operator.set_offsets(connection, group, offsets, cluster_id=CLUSTER, move=True, by=ANN)
            self._restart(group)  # a partition without new records would not notice

        self._operate(move())

    def _operate(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run a command; an error shown to the operator is not a fault."""
        self.under_way += 1

        async def run() -> None:
            try:
                with suppress(BridgeError):
                    await work
            finally:
                self.under_way -= 1

        self.world.loop.create_task(run(), context=self.world.context)

    # The end of a phase, and of the world.

    async def live(self) -> None:
        loop = self.world.loop
        for worker in self.workers.values():
            worker.start()
        watching = loop.create_task(self._watch())
        for phase in range(PHASES):
            began = loop.time()
            for act in [each for each in self.plan.acts if each.phase == phase]:
                await asyncio.sleep(max(0.0, began + act.at - loop.time()))
                self.do(act)
            if phase == PHASES - 1 or self.plan.seed % 2:
                await asyncio.sleep(max(0.0, self.heals_at - loop.time()))
                await self._calm()
        self._records(1.0)
        await self._calm()
        self.effects.judge_parked()
        self.sinks.mended = True
        await self._clear()
        self.effects.judge()
        watching.cancel()

    async def _watch(self) -> None:
        for seconds in count(1):
            await asyncio.sleep(1.0)
            for group in self.groups.values():
                group.look()
            if seconds % LOOK_EVERY_S == 0:
                self.effects.judge_held()

    async def _rest(self) -> bool:
        """Wait until no work is left; return False at the time limit."""
        ends_at = self.world.loop.time() + REST_S
        while self.world.loop.time() < ends_at:
            await asyncio.sleep(2.0)
            if not self.under_way and self.effects.is_at_rest():
                return True
        return False

    async def _calm(self) -> None:
        for _ in range(3):
            if await self._rest():
                return
            for group in GROUPS:
                self._resume(group)
        self.effects.note("settled", *self.effects.left())

    async def _clear(self) -> None:
        """Skip unreadable records and release the others, until no record is parked."""
        rows = self.postgres.server.rows
        for _ in range(40):
            for group in GROUPS:
                for row in rows(_PARKED.format(_LASTING), group):
                    self._give_up(group, *row)
            await self._rest()
            for group in GROUPS:
                self._resume(group)
                self._retry(group)
            await self._rest()
            if not rows("select from drx_consumer.parked_key"):
                return
        self.effects.note("settled", "parked without end", *rows("select grp, key, code from drx_consumer.parked_key"))


@cache
def _server(dsn: str, process: int) -> Server:
    """Open a separate database for this process."""
    name = f"worlds_{process}"
    execute(dsn, f"create database {name}")
    own = urlsplit(dsn)._replace(path=f"/{name}", query="search_path=world,pg_catalog,public").geturl()
    server = Server(own)

    async def make_tables() -> None:
        async with open_database(own, size=1, application_name="simulation") as database:
            for each in GROUPS:
                await migrate_tables(database, Sinks(World(0), {}).build(each)[0])

    asyncio.run(make_tables())
    server.execute(TABLES)
    return server


def run(plan: Plan, *, dsn: str, verbose: bool = False) -> story.Ran:
    """Run a world to its end, on empty tables of a server."""
    server = _server(dsn, os.getpid())
    _world_of(plan.seed // WORLDS_OF_A_LOG)
    began = time.process_time()
    random.seed(plan.seed)
    server.empty()
    world = World(plan.seed, verbose=verbose)
    with story.collected():
        scene = Scene(world, plan, server)
        effects = scene.effects
        world.loop.set_exception_handler(
            lambda _loop, context: effects.note("no_bug", context.get("message"), repr(context.get("exception")))
        )
        before = log.put, log.least
        log.put, log.least = effects.logged, LEVELS["info"]
        try:
            world.loop.run_until_complete(scene.live())
        except RuntimeError as exc:
            effects.note("no_bug", exc)
        finally:
            log.put, log.least = before
            world.loop.bury()
            scene.postgres.gone(scene.postgres.sessions)
    took_s = time.process_time() - began
    return story.Ran(plan, effects.broken, world.trace, world.lines, scene.given, scene.given, world.at_s, took_s)
