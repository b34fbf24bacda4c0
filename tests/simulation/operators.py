"""The actions of a world except those of senders: faults of Kafka, disks and clocks, and operators.

A plan is a list of independent acts, so that most of them can be removed from a failing run. The seed draws the kinds
of acts of a world: worlds with few kinds find faults that worlds with all kinds hide.
"""

import asyncio
import random
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from math import inf
from pathlib import Path
from typing import Any, NamedTuple

from aiokafka import errors as kafka_errors  # noqa: TID251 - the fake of its wrapper

from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from tests.simulation import commands
from tests.simulation.dialects import VARIANTS, Delivery, Kind, Variant, batch, headers, native, record, secret, slots
from tests.simulation.kafka import MAX_BYTES, Kafka
from tests.simulation.replica import Host
from tests.simulation.senders import Senders, Way
from tests.simulation.world import World

TOPICS = (PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC, UNRECOGNIZED_TOPIC)
HOSTS = ("r1", "r2")
PHASES = 3
PHASE_S = 48.0
QUIET_S = 1200.0
DELIVERIES = 120  # in each phase


class Act(NamedTuple):
    """One action at `at` seconds of the loop's time in its phase."""

    phase: int
    at: float
    kind: str
    args: tuple[Any, ...]


class Plan(NamedTuple):
    """All decisions before a world begins."""

    seed: int
    partitions: int
    set_aside_after_s: float
    spooling: bool  # the hosts have a spool
    kinds: Sequence[str]
    acts: Sequence[Act]


def _host(rng: random.Random) -> int:
    return rng.randrange(len(HOSTS))


def _for(rng: random.Random) -> float:
    """Draw a duration: mostly seconds, sometimes most of a phase."""
    return round(rng.choice((rng.uniform(0.1, 3), rng.uniform(2, 12), rng.uniform(8, 40))), 3)


def _down(rng: random.Random) -> float:
    """Draw how long a process is down: mostly so briefly that more happens amid the same trouble."""
    return round(rng.uniform(0.1, 2), 3) if rng.random() < 0.7 else _for(rng)


# By kind: its arguments, drawn from the plan's chance.
KINDS: Mapping[str, Callable[[random.Random], tuple[Any, ...]]] = {
    "kill": lambda rng: (_host(rng), rng.randrange(60), _down(rng)),
    "kill_in_disk": lambda rng: (_host(rng), rng.randrange(1, 25), _down(rng)),
    "kill_at_write": lambda rng: (_host(rng), rng.randrange(1, 6), rng.randrange(30), _down(rng)),
    "power": lambda rng: (_host(rng), _down(rng), rng.choice((0.0, round(rng.uniform(-60, 60), 3)))),
    "stop": lambda rng: (_host(rng), _down(rng)),
    "freeze": lambda rng: (_host(rng), _for(rng)),
    "broker": lambda rng: (rng.randrange(3), rng.choice(("down", "silent")), _for(rng)),
    "kafka_away": lambda rng: (rng.choice(("down", "silent")), _for(rng)),
    "slow_acks": lambda rng: (round(rng.uniform(0.1, 6), 3), _for(rng)),
    "lost_answers": lambda rng: (round(rng.uniform(0.1, 0.9), 3), _for(rng)),
    "cut_off": lambda rng: (_host(rng), _for(rng)),
    "refused": lambda rng: (rng.choice(TOPICS), rng.choice(sorted(REFUSALS)), _for(rng)),
    "narrow": lambda rng: (rng.choice(TOPICS), rng.randrange(600, 4000), _for(rng)),
    "partitions": lambda rng: (rng.choice(TOPICS), rng.randrange(1, 3)),
    "fenced": lambda _: (),
    "lag": lambda rng: (round(rng.uniform(0.1, 8), 3), _for(rng)),
    "disk_slow": lambda rng: (_host(rng), round(rng.uniform(0.05, 3), 3), _for(rng)),
    "disk_hangs": lambda rng: (_host(rng), _for(rng)),
    "disk_fails": lambda rng: (
        _host(rng),
        rng.choice(("write", "sync", "read")),
        round(rng.choice((1.0, rng.uniform(0.05, 1))), 3),
        rng.choice((_for(rng), 55.0, 55.0)),
    ),
    "disk_full": lambda rng: (_host(rng), rng.randrange(rng.choice((3000, 60_000))), _for(rng)),
    "disk_read_only": lambda rng: (_host(rng), _for(rng)),
    "step": lambda rng: (_host(rng), round(rng.choice((-1, 1)) * rng.choice((0.5, 5, 60, 250)) * rng.random(), 3)),
    "anew": lambda rng: (rng.choice(TOPICS),),
    "bit": lambda rng: (_host(rng), rng.choice((0.0, _down(rng)))),
    "unread": lambda rng: (_host(rng), round(rng.choice((1.0, rng.uniform(0.05, 1))), 3), _down(rng)),
    "no_positions": lambda rng: (_host(rng),),
    "no_segment": lambda rng: (_host(rng), _down(rng)),
    "redeploy": lambda rng: (_host(rng), rng.choice(VARIANTS), rng.uniform(0.1, 5)),
    "replay": lambda rng: (_host(rng), rng.choice(("acme", "drx"))),
    "rotate": lambda rng: (rng.choice(("drx", "acme", "plain")),),
    "spool_key": lambda rng: (_host(rng),),
    "key_away": lambda rng: (_host(rng), _for(rng)),
    "drain": lambda rng: (_host(rng), _down(rng)),
    "put_back": lambda rng: (_host(rng),),
    "drift": lambda rng: (_host(rng), round(rng.uniform(-0.01, 0.01), 4)),
}
OUTAGES = ("kafka_away", "cut_off", "broker", "slow_acks", "refused")
# What matters most: how a process ends while its spool holds something, and what the spool goes through.
ENDS = ("kill", "kill_in_disk", "kill_at_write", "power", "stop", "redeploy", "drain")
STORED = (
    *("disk_slow", "disk_hangs", "disk_fails", "disk_full", "disk_read_only", "bit", "no_positions"),
    *("no_segment", "unread"),
    *("spool_key", "key_away", "step", "narrow", "refused", "lag", "freeze"),
)
# What senders do: in the plan these are kinds, too.
HABITS = (
    *("repeats", "roams", "hasty", "at_once", "conflicts", "unusable", "spread", "bursts"),
    *("acme", "plain", "hostile"),
)
# Of a sender without ids: a state comes twice, a body can be no event, and the other replica gets one.
PLAIN_HABITS = ("returns", "broken", "elsewhere")
REFUSALS: Mapping[str, type[kafka_errors.BrokerResponseError]] = {
    "not_authorized": kafka_errors.TopicAuthorizationFailedError,
    "policy": kafka_errors.PolicyViolationError,
    "not_enough_replicas": kafka_errors.NotEnoughReplicasError,
}


def make_plan(seed: int) -> Plan:
    """Draw the kinds of actions of a world, and every action."""
    rng = random.Random(f"{seed} plan")  # noqa: S311 - decides a test, guards nothing
    faults = rng.sample(sorted(KINDS), rng.choice((1, 2, 2, 3, 3, 4, 6, 12)))
    outage = rng.choice(OUTAGES) if rng.random() < 0.6 else ""  # the spool is used amid one of these only
    is_spooling = rng.random() < 0.85
    most = 12
    if rng.random() < 0.6:
        is_spooling, most = True, 20
        faults = [*rng.sample(ENDS, rng.choice((1, 2))), *rng.sample(STORED, rng.choice((0, 1, 1, 2)))]
        outage = rng.choice(("kafka_away", *OUTAGES))
    faults += [outage] if outage else []
    share = rng.choice((0.15, 0.4, 0.7))
    kinds = [*dict.fromkeys(faults), *(each for each in HABITS if rng.random() < share)]
    # Drawn apart, so that worlds without these are what they were.
    apart = random.Random(f"{seed} apart")  # noqa: S311 - as above
    if "plain" in kinds:
        kinds += [each for each in PLAIN_HABITS if apart.random() < share]
    acts: list[Act] = []
    # Most acts of a phase gather around one moment: what matters is one that happens amid another.
    moments = [rng.uniform(2, PHASE_S * 0.7) for _ in range(PHASES)]
    for phase, around in enumerate(moments):
        if outage and rng.random() < 0.7:  # long enough for all that
            acts.append(Act(phase, round(around, 3), outage, (*KINDS[outage](rng)[:-1], rng.uniform(5, 40))))
        for _ in range(rng.randrange(2, most)):
            kind = rng.choice(faults)
            at = rng.uniform(1, PHASE_S) if rng.random() < 0.25 else around + rng.expovariate(0.2)
            acts.append(Act(phase, round(min(at, PHASE_S), 3), kind, KINDS[kind](rng)))
    acts = [act._replace(args=(*act.args, apart.choice(("", *TOPICS)))) if act.kind == "lag" else act for act in acts]
    acts += Deliveries(rng, kinds, apart).acts(moments)
    acts.sort(key=lambda act: act[:3])
    return Plan(seed, rng.choice((1, 2, 3)), rng.choice((600.0, 6.0)), is_spooling, kinds, acts)


class Deliveries:
    """Draws deliveries, and how they are sent."""

    def __init__(self, rng: random.Random, kinds: Sequence[str], apart: random.Random) -> None:
        self._rng, self._kinds, self._apart = rng, kinds, apart
        self._keys = [f"kq7_{number}" for number in range(rng.choice((2, 5, 12, 24)))]
        self._sent: list[Delivery] = []
        self._states: dict[str, int] = {}
        self._number = 0

    def acts(self, moments: Sequence[float]) -> Iterator[Act]:
        """Send half of the deliveries of each phase after its central moment."""
        rng, kinds = self._rng, self._kinds
        for phase, around in enumerate(moments):
            near = [around + rng.expovariate(0.1) for _ in range(DELIVERIES // 2)]
            before = 0.0
            for each in sorted([*near, *(rng.uniform(0, PHASE_S) for _ in range(DELIVERIES // 2))]):
                at = before = before if "bursts" in kinds and rng.random() < 0.6 else min(each, PHASE_S)
                self._number += 1
                if "hostile" in kinds and self._sent and rng.random() < 0.05:
                    how = rng.choice(("altered", "old", "elsewhere", "keyless"))
                    yield Act(phase, round(at, 4), "attack", (rng.choice(self._sent), how, _host(rng)))
                    continue
                delivery = self._next()
                yield Act(phase, round(at, 4), "send", (delivery, self._way(delivery)))

    def _way(self, delivery: Delivery) -> Way:
        rng, kinds = self._rng, self._kinds
        # Without ids a source needs one replica, one delivery of a key at a time, and a sender that does not give up.
        plain = delivery.source == "plain"
        replica = sum(delivery.key.encode()) % len(HOSTS)
        if "spread" in kinds and not plain:
            replica = _host(rng)
        if "elsewhere" in kinds and plain and self._apart.random() < 0.1:
            replica = 1 - replica
        return Way(
            host=replica,
            tries=8 if plain else rng.choice((1, 3, 8)),
            roams="roams" in kinds and not plain and rng.random() < 0.5,
            patience_s=round(rng.uniform(0.05, 3) if "hasty" in kinds and rng.random() < 0.4 else 8.0, 3),
            in_order=plain or "at_once" not in kinds or rng.random() < 0.3,
            salt=rng.getrandbits(32),
        )

    def _next(self) -> Delivery:
        rng, kinds, sent, number = self._rng, self._kinds, self._sent, self._number
        if "plain" in kinds and rng.random() < 0.25:
            key = rng.choice(self._keys[:5])
            if "returns" not in kinds or self._apart.random() < 0.7:
                self._states[key] = self._states.get(key, 0) + 1
            lacks = self._apart.choice(("rx", "state")) if "broken" in kinds and self._apart.random() < 0.15 else ""
            return record(number, key=key, state=("DONE", "OK")[self._states.get(key, 0) % 2], lacks=lacks)
        if sent and "repeats" in kinds and rng.random() < 0.25:
            return sent[-min(len(sent), int(rng.expovariate(0.1)) + 1)]
        if "acme" in kinds and rng.random() < 0.3:
            delivery = batch(rng, number, keys=self._keys, known=[each for each in sent if each.source == "acme"])
        elif sent and "conflicts" in kinds and rng.random() < 0.1:
            natives = [each for each in sent if each.source == "drx"][-rng.choice((3, 8, 40)) :]
            other = rng.choice(natives) if natives else None
            key, event_id = (other.key, other.id) if other else (self._keys[0], "")
            return native(rng, number, key=key, event_id=event_id, kind="conflict" if other else "whole")
        else:
            kind: Kind = "unusable" if "unusable" in kinds and rng.random() < 0.1 else "whole"
            delivery = native(rng, number, key=rng.choice(self._keys), kind=kind)
        sent.append(delivery)
        return delivery


@dataclass(eq=False)
class Operators:
    """Runs the actions of a plan."""

    world: World
    hosts: Sequence[Host]
    kafka: Kafka
    senders: Senders
    under_way: int = 0  # faults that have not ended
    writes: list[Callable[[], None]] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)
    rotating: set[str] = field(default_factory=set)
    emptied: set[str] = field(default_factory=set)  # topics that were made anew
    # When a host, or any if that is empty, could not read topics or did not run.
    troubles: list[tuple[float, float, str]] = field(default_factory=list)
    done: set[str] = field(default_factory=set)  # kinds of acts
    on_bit: Callable[[Host, Path, bytes, int | None], None] = lambda *_: None

    def do(self, act: Act) -> None:
        if act.kind == "send":
            self.senders.send(*act.args)
            return
        self.world.note("operator", act.kind, *act.args)
        self.done.add(act.kind)
        getattr(self, act.kind)(*act.args)

    def heal(self) -> None:
        """End every fault, and start stopped processes."""
        self.world.note("operator", "heals all")
        kafka, now = self.kafka, self.world.loop.time()
        self.troubles = [(begun, min(end, now), host) for begun, end, host in self.troubles]
        kafka.ack_s = kafka.lost_answers = 0.0
        self._set_lag(0.0)
        kafka.cut_off.clear()
        for topic in kafka.topics.values():
            topic.refusal, topic.max_bytes = None, MAX_BYTES
        for broker in kafka.brokers:
            if broker.state != "up":
                kafka.set_state(broker.id, "up")
        for host in self.hosts:
            faults = host.disk.faults
            faults.write = faults.sync = faults.read = faults.slow_s = 0.0
            faults.room_bytes, faults.read_only = None, False
            host.disk.kill_at = -1
            self._key_back(host)
            host.disk.flow()
            if host.process is not None:
                host.process.thaw()
            host.start()
        self.writes.clear()

    def _trouble(self, seconds: float, host: str = "") -> None:
        """Note trouble of a host, of all hosts, or with what readers see: `lag`."""
        now = self.world.loop.time()
        self.troubles.append((now, now + seconds, host))

    def _until(self, seconds: float, end: Callable[[], Any]) -> None:
        self.under_way += 1

        def ended() -> None:
            self.under_way -= 1
            end()

        self.world.later(seconds, ended)

    def kill(self, host: int, turns: int, down_s: float) -> None:
        """Kill a process some turns of the loop later, at its current await."""
        if turns:
            self.world.soon(lambda: self.kill(host, turns - 1, down_s))
            return
        self.hosts[host].kill()
        self._until(down_s, self.hosts[host].start)

    def kill_in_disk(self, host: int, operations: int, down_s: float) -> None:
        disk = self.hosts[host].disk
        disk.kill_at = disk.operations + operations
        self._until(down_s, self.hosts[host].start)

    def kill_at_write(self, host: int, nth: int, turns: int, down_s: float) -> None:
        """Kill a process soon after the leaders have accepted the nth write from now."""
        self.writes += [lambda: None] * (nth - 1) + [lambda: self.kill(host, turns, down_s)]

    def power(self, host: int, down_s: float, wrong_s: float) -> None:
        """Cut the power of a host, whose clock is wrong afterwards."""
        self.hosts[host].cut_power()
        self.hosts[host].clock.offset_s = wrong_s
        self._until(down_s, self.hosts[host].start)

    def stop(self, host: int, down_s: float) -> None:
        self.redeploy(host, self.hosts[host].wanted, down_s)

    def freeze(self, host: int, seconds: float) -> None:
        process = self.hosts[host].process
        if process is not None:
            process.freeze()
            now = self.world.loop.time()
            self.hosts[host].pauses.append((now, now + seconds))
            self._trouble(seconds, HOSTS[host])
            self._until(seconds, process.thaw)

    def broker(self, number: int, state: str, seconds: float) -> None:
        self.kafka.set_state(number, state)
        self._trouble(seconds)
        self._until(seconds, lambda: self.kafka.set_state(number, "up"))

    def kafka_away(self, state: str, seconds: float) -> None:
        for number in range(len(self.kafka.brokers)):
            self.broker(number, state, seconds)

    def slow_acks(self, ack_s: float, seconds: float) -> None:
        self.kafka.ack_s = ack_s
        self._until(seconds, partial(setattr, self.kafka, "ack_s", 0.0))

    def lost_answers(self, share: float, seconds: float) -> None:
        self.kafka.lost_answers = share
        self._until(seconds, partial(setattr, self.kafka, "lost_answers", 0.0))

    def lag(self, lag_s: float, seconds: float, topic: str) -> None:
        """Let readers of a topic, or of all, be behind."""
        self._set_lag(lag_s, topic)
        self._trouble(seconds, "lag")
        self._until(seconds, partial(self._set_lag, 0.0, topic))

    def _set_lag(self, lag_s: float, topic: str = "") -> None:
        self.kafka.lag_s |= dict.fromkeys([topic] if topic else TOPICS, lag_s)

    def cut_off(self, host: int, seconds: float) -> None:
        self.kafka.cut_off.add(HOSTS[host])
        self._trouble(seconds, HOSTS[host])
        self._until(seconds, lambda: self.kafka.cut_off.discard(HOSTS[host]))

    def refused(self, topic: str, why: str, seconds: float) -> None:
        self.kafka.topics[topic].refusal = REFUSALS[why]
        self._until(seconds, partial(setattr, self.kafka.topics[topic], "refusal", None))

    def narrow(self, topic: str, size: int, seconds: float) -> None:
        self.kafka.topics[topic].max_bytes = size
        self._until(seconds, partial(setattr, self.kafka.topics[topic], "max_bytes", MAX_BYTES))

    def partitions(self, topic: str, more: int) -> None:
        self.kafka.add_partitions(topic, len(self.kafka.topics[topic].partitions) + more)

    def fenced(self) -> None:
        self.kafka.fence()

    def disk_slow(self, host: int, slow_s: float, seconds: float) -> None:
        self.hosts[host].disk.faults.slow_s = slow_s
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, "slow_s", 0.0))

    def disk_hangs(self, host: int, seconds: float) -> None:
        self.hosts[host].disk.hang()
        self._until(seconds, self.hosts[host].disk.flow)

    def disk_fails(self, host: int, what: str, share: float, seconds: float) -> None:
        disk = self.hosts[host].disk
        if what == "read" and not disk.faults.read:
            disk.failing_since = self.world.loop.time()
        setattr(disk.faults, what, share)
        self._until(seconds, partial(setattr, disk.faults, what, 0.0))

    def disk_full(self, host: int, room: int, seconds: float) -> None:
        disk = self.hosts[host].disk
        disk.faults.room_bytes = disk.used_bytes + room
        self._until(seconds, partial(setattr, disk.faults, "room_bytes", None))

    def disk_read_only(self, host: int, seconds: float) -> None:
        self.hosts[host].disk.faults.read_only = True
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, "read_only", 0))

    def step(self, host: int, seconds: float) -> None:
        self.hosts[host].clock.offset_s = seconds

    def drift(self, host: int, rate: float) -> None:
        self.hosts[host].clock.drift = rate

    def anew(self, topic: str) -> None:
        self.emptied.add(topic)
        self.kafka.make_anew(topic)

    def bit(self, host: int, down_s: float) -> None:
        """Flip a bit of a segment, if there is one; with a time, have the next process find it at its start."""
        disk = self.hosts[host].disk
        segments = sorted(path for path, file in disk.files.items() if path.suffix == ".segment" and file.content)
        if segments:
            before = bytes(disk.files[segments[0]].content)
            self.on_bit(self.hosts[host], segments[0], before, disk.turn_a_bit(segments[0]))
        if down_s:
            self.kill(host, 0, down_s)

    def unread(self, host: int, share: float, down_s: float) -> None:
        """Kill a process whose disk does not return all data when it starts again."""
        self.disk_fails(host, "read", share, 60.0)
        self.kill(host, 0, down_s)

    def no_positions(self, host: int) -> None:
        disk = self.hosts[host].disk
        for path in [each for each in disk.files if each.suffix == ".positions"]:
            del disk.files[path]
            disk.durable.pop(path, None)

    def no_segment(self, host: int, down_s: float) -> None:
        """Kill a process, and remove its oldest segment before it starts again."""
        self.kill(host, 0, down_s)
        disk = self.hosts[host].disk
        if path := min((path for path in disk.files if path.suffix == ".segment"), default=None):
            self.on_bit(self.hosts[host], path, bytes(disk.files.pop(path).content), None)
            disk.durable.pop(path, None)

    def redeploy(self, host: int, variant: Variant, down_s: float) -> None:
        """Stop a process, and start it with other settings."""
        found = self.hosts[host]
        found.wanted = variant
        found.stop()
        before = found.process

        def again() -> None:
            if found.process is None:
                found.start()
            elif found.process is before:  # it is stopping yet
                self.world.later(1.0, again)

        self._until(down_s, again)

    def replay(self, host: int, source: str) -> None:
        work = commands.replay(self.kafka, self.senders, self.hosts[host], source)
        self._run(self.world.loop.create_task(work, context=self.world.context))

    def _run(self, task: "asyncio.Task[Any]") -> None:
        self.under_way += 1

        def ended(done: "asyncio.Task[Any]") -> None:
            self.under_way -= 1
            if not done.cancelled() and (failure := done.exception()) is not None:
                self.failures.append(failure)

        task.add_done_callback(ended, context=self.world.context)

    def rotate(self, source: str) -> None:
        """Add a secret on each host, let the sender use it, and remove the old one."""
        if source in self.rotating:
            return
        self.rotating.add(source)
        new = self.senders.keys[source] + 1
        for number, host in enumerate(self.hosts):
            self.world.later(number * 2.0, partial(self._hold, host, source, new, new - 1))
        self.world.later(3.0, partial(self.senders.keys.__setitem__, source, new))
        self._until(20.0, partial(self._retire, source, new))

    @staticmethod
    def _hold(host: Host, source: str, *numbers: int) -> None:
        host.secrets[source].keys = slots(source, *numbers)

    def _retire(self, source: str, new: int) -> None:
        now = self.world.loop.time()
        if any(host.stood_still(now - 1.0, now) for host in self.hosts):  # it has yet to verify what it was sent
            self._until(2.0, partial(self._retire, source, new))
            return
        self.rotating.discard(source)
        for host in self.hosts:
            self._hold(host, source, new)

    def spool_key(self, host: int) -> None:
        """Make another key the one that encrypts; the old ones still decrypt."""
        directory = self.hosts[host].keys_at
        number = len(list(directory.iterdir()))
        (directory / "current").rename(directory / f"old{number}")
        write_key(directory / "current", number)

    def key_away(self, host: int, seconds: float) -> None:
        """Remove the keys of a spool for a while, like an unmounted volume."""
        found = self.hosts[host]
        if found.key_gone_at == inf:
            found.key_gone_at = self.world.loop.time()
            found.key_dir.rename(found.keys_at)
            self._until(seconds, partial(self._key_back, found))

    def _key_back(self, host: Host) -> None:
        if host.key_gone_at < inf:
            host.keys_at.rename(host.key_dir)
            host.key_gone_at = inf

    def drain(self, host: int, down_s: float) -> None:
        """Kill a process and drain its spool by the command, before it starts again."""
        found = self.hosts[host]
        if not found.spooling or (found.draining is not None and not found.draining.done()):
            return
        found.kill("to be drained")
        found.draining = commands.begin(found, "drain", commands.drain(found))
        self._run(found.draining)
        found.draining.add_done_callback(lambda _: self._until(down_s, found.start), context=self.world.context)

    def put_back(self, host: int) -> None:
        self._run(commands.begin(self.hosts[host], "put_back", commands.put_back(self.hosts[host])))

    def attack(self, captured: Delivery, how: str, host: int) -> None:
        """Post altered captured deliveries, which must be refused."""
        key = secret(captured.source, self.senders.keys[captured.source])
        now = self.world.true_clock.now()
        delivery = captured._replace(kind="hostile", number=-captured.number)
        given = headers(captured, now - (4000 if how == "old" else 0), b"x" * 32 if how == "keyless" else key)
        if how == "altered":
            delivery = delivery._replace(body=captured.body.replace(b"7", b"8"), sha256=f"altered {captured.sha256}")
        if how == "elsewhere":
            delivery = delivery._replace(source="acme" if captured.source == "drx" else "drx")
        if captured.source == "plain" and how == "old":
            return  # it signs no time
        rng = random.Random(f"{self.world.seed} {captured.number} {how}")  # noqa: S311 - of the seed
        work = self.senders.attempt(delivery, self.hosts[host], rng, patience_s=8.0, given=given)
        self._run(self.world.loop.create_task(work, context=self.world.context))


def write_key(path: Path, number: int) -> None:
    """Write the file of a spool's key."""
    path.write_bytes(b"spk_" + b64encode(b"%032d" % number) + b"\n")
    path.chmod(0o600)
