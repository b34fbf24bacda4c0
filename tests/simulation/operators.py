"""What happens in a world beside the senders: faults of Kafka, disks and clocks, and what operators do.

A plan is a list of acts, each by itself, so that a story can be told without most of them. A kind of act exists in a
world or not, as the seed draws it: worlds with few kinds find what worlds with all of them hide.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from aiokafka import errors as kafka_errors  # noqa: TID251 - the fake stands in the door

from bridge.kafka.routing import ACCOUNTS_TOPIC, PRESCRIPTIONS_TOPIC, UNRECOGNIZED_TOPIC
from tests.simulation.kafka import MAX_BYTES, Kafka
from tests.simulation.replica import Host
from tests.simulation.senders import Delivery, Senders, Way, a_delivery
from tests.simulation.world import World

TOPICS = (PRESCRIPTIONS_TOPIC, ACCOUNTS_TOPIC, UNRECOGNIZED_TOPIC)
HOSTS = ("r1", "r2")
PHASES = 4
PHASE_S = 60.0
QUIET_S = 1000.0
DELIVERIES = 90  # in each phase


class Act(NamedTuple):
    """One thing that happens at `at` seconds of the loop's time in its phase."""

    phase: int
    at: float
    kind: str
    args: tuple[Any, ...]


class Plan(NamedTuple):
    """All that is decided before a world begins."""

    seed: int
    partitions: int
    kinds: Sequence[str]
    acts: Sequence[Act]


def _host(rng: random.Random) -> int:
    return rng.randrange(len(HOSTS))


def _for(rng: random.Random) -> float:
    """Draw how long something lasts: mostly seconds, sometimes most of a phase."""
    return round(rng.choice((rng.uniform(0.1, 3), rng.uniform(2, 12), rng.uniform(8, 40))), 3)


# By kind: its arguments, drawn from the plan's chance.
KINDS: Mapping[str, Callable[[random.Random], tuple[Any, ...]]] = {
    "kill": lambda rng: (_host(rng), rng.randrange(60), _for(rng)),
    "kill_in_disk": lambda rng: (_host(rng), rng.randrange(1, 25), _for(rng)),
    "kill_at_write": lambda rng: (_host(rng), rng.randrange(1, 6), rng.randrange(30), _for(rng)),
    "power": lambda rng: (_host(rng), _for(rng)),
    "stop": lambda rng: (_host(rng), _for(rng)),
    "freeze": lambda rng: (_host(rng), _for(rng)),
    "broker": lambda rng: (rng.randrange(3), rng.choice(("down", "silent")), _for(rng)),
    "kafka_away": lambda rng: (rng.choice(("down", "silent")), _for(rng)),
    "slow_acks": lambda rng: (round(rng.uniform(0.1, 6), 3), _for(rng)),
    "lost_answers": lambda rng: (round(rng.uniform(0.1, 0.9), 3), _for(rng)),
    "cut_off": lambda rng: (_host(rng), _for(rng)),
    "refused": lambda rng: (rng.choice(TOPICS), rng.choice(sorted(REFUSALS)), _for(rng)),
    "narrow": lambda rng: (rng.choice(TOPICS), rng.randrange(600, 4000), _for(rng)),
    "partitions": lambda rng: (rng.choice(TOPICS), rng.randrange(1, 3)),
    "forgotten": lambda _: (),
    "lag": lambda rng: (round(rng.uniform(0.1, 8), 3), _for(rng)),
    "disk_slow": lambda rng: (_host(rng), round(rng.uniform(0.05, 3), 3), _for(rng)),
    "disk_hangs": lambda rng: (_host(rng), _for(rng)),
    "disk_fails": lambda rng: (
        _host(rng),
        rng.choice(("write", "sync", "read")),
        round(rng.uniform(0.05, 1), 3),
        _for(rng),
    ),
    "disk_full": lambda rng: (_host(rng), rng.randrange(0, 60_000), _for(rng)),
    "disk_read_only": lambda rng: (_host(rng), _for(rng)),
    "step": lambda rng: (_host(rng), round(rng.choice((-1, 1)) * rng.choice((0.5, 5, 60, 250)) * rng.random(), 3)),
    "drift": lambda rng: (_host(rng), round(rng.uniform(-0.01, 0.01), 4)),
}
# Of the senders: they are in the plan as kinds, too.
HABITS = ("repeats", "roams", "hasty", "at_once", "conflicts", "unusable", "spread", "bursts")
REFUSALS: Mapping[str, type[kafka_errors.BrokerResponseError]] = {
    "not_authorized": kafka_errors.TopicAuthorizationFailedError,
    "policy": kafka_errors.PolicyViolationError,
    "not_enough_replicas": kafka_errors.NotEnoughReplicasError,
}


def make_plan(seed: int) -> Plan:
    """Decide what there is in a world, and what happens in it."""
    rng = random.Random(f"{seed} plan")  # noqa: S311 - decides a test, guards nothing
    names = [*KINDS, *HABITS]
    share = rng.choice((0.08, 0.2, 0.5, 0.9))
    kinds = [each for each in names if rng.random() < share] or [rng.choice(names)]
    acts: list[Act] = []
    faults = [each for each in kinds if each in KINDS]
    for phase in range(PHASES):
        for _ in range(rng.randrange(1, 5) if faults else 0):
            kind = rng.choice(faults)
            acts.append(Act(phase, round(rng.uniform(1, PHASE_S), 3), kind, KINDS[kind](rng)))
    acts += _sends(rng, kinds)
    return Plan(seed, rng.choice((1, 2, 3)), kinds, sorted(acts, key=lambda act: act[:3]))


def _sends(rng: random.Random, kinds: Sequence[str]) -> list[Act]:
    keys = [f"rx_{number}" for number in range(rng.randrange(4, 24))]
    acts, sent = [], list[Delivery]()
    for phase in range(PHASES):
        at = 0.0
        for _ in range(DELIVERIES):
            gap = rng.expovariate(DELIVERIES / PHASE_S)
            at += 0.0 if "bursts" in kinds and rng.random() < 0.6 else gap
            delivery = _next(rng, kinds, keys, sent)
            sent.append(delivery)
            way = Way(
                host=_host(rng) if "spread" in kinds else int(delivery.key[3:]) % len(HOSTS),
                tries=rng.choice((1, 3, 8)),
                roams="roams" in kinds and rng.random() < 0.5,
                patience_s=round(rng.uniform(0.05, 3) if "hasty" in kinds and rng.random() < 0.4 else 8.0, 3),
                in_order="at_once" not in kinds or rng.random() < 0.3,
                salt=rng.getrandbits(32),
            )
            acts.append(Act(phase, round(at, 4), "send", (delivery, way)))
    return acts


def _next(rng: random.Random, kinds: Sequence[str], keys: Sequence[str], sent: Sequence[Delivery]) -> Delivery:
    number = len(sent)
    if sent and "repeats" in kinds and rng.random() < 0.25:
        return sent[-min(number, int(rng.expovariate(0.1)) + 1)]
    if sent and "conflicts" in kinds and rng.random() < 0.1:
        other = sent[-min(number, int(rng.expovariate(0.2)) + 1)]
        return a_delivery(rng, number, key=other.key, event_id=other.id, kind="conflict")
    kind = "unusable" if "unusable" in kinds and rng.random() < 0.1 else "event"
    return a_delivery(rng, number, key=rng.choice(keys), event_id=f"evt_{number}", kind=kind)  # type: ignore[arg-type]  # one of two


@dataclass(eq=False)
class Operators:
    """Does what the plan says."""

    world: World
    hosts: Sequence[Host]
    kafka: Kafka
    senders: Senders
    under_way: int = 0  # faults that have not ended
    writes: list[Callable[[], None]] = field(default_factory=list)

    def do(self, act: Act) -> None:
        if act.kind == "send":
            self.senders.send(*act.args)
            return
        self.world.note("operator", act.kind, *act.args)
        getattr(self, act.kind)(*act.args)

    def heal(self) -> None:
        """End every fault, and start what does not run."""
        self.world.note("operator", "heals all")
        kafka = self.kafka
        kafka.ack_s = kafka.lost_answers = kafka.lag_s = 0.0
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
            host.disk.flow()
            if host.process is not None:
                host.process.thaw()
            host.start()
        self.writes.clear()

    def _until(self, seconds: float, end: Callable[[], Any]) -> None:
        self.under_way += 1

        def ended() -> None:
            self.under_way -= 1
            end()

        self.world.later(seconds, ended)

    def kill(self, host: int, turns: int, down_s: float) -> None:
        """Kill a process some turns of the loop later, at whatever await it is then."""
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
        """Kill a process soon after the leaders have taken the nth write from now."""
        self.writes += [lambda: None] * (nth - 1) + [lambda: self.kill(host, turns, down_s)]

    def power(self, host: int, down_s: float) -> None:
        self.hosts[host].cut_power()
        self._until(down_s, self.hosts[host].start)

    def stop(self, host: int, down_s: float) -> None:
        self.hosts[host].stop()
        self._until(down_s + 20.0, self.hosts[host].start)

    def freeze(self, host: int, seconds: float) -> None:
        process = self.hosts[host].process
        if process is not None:
            process.freeze()
            self._until(seconds, process.thaw)

    def broker(self, number: int, state: str, seconds: float) -> None:
        self.kafka.set_state(number, state)
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

    def lag(self, lag_s: float, seconds: float) -> None:
        self.kafka.lag_s = lag_s
        self._until(seconds, partial(setattr, self.kafka, "lag_s", 0.0))

    def cut_off(self, host: int, seconds: float) -> None:
        self.kafka.cut_off.add(HOSTS[host])
        self._until(seconds, lambda: self.kafka.cut_off.discard(HOSTS[host]))

    def refused(self, topic: str, why: str, seconds: float) -> None:
        self.kafka.topics[topic].refusal = REFUSALS[why]
        self._until(seconds, partial(setattr, self.kafka.topics[topic], "refusal", None))

    def narrow(self, topic: str, size: int, seconds: float) -> None:
        self.kafka.topics[topic].max_bytes = size
        self._until(seconds, partial(setattr, self.kafka.topics[topic], "max_bytes", MAX_BYTES))

    def partitions(self, topic: str, more: int) -> None:
        self.kafka.add_partitions(topic, len(self.kafka.topics[topic].partitions) + more)

    def forgotten(self) -> None:
        self.kafka.forget_producers()

    def disk_slow(self, host: int, slow_s: float, seconds: float) -> None:
        self.hosts[host].disk.faults.slow_s = slow_s
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, "slow_s", 0.0))

    def disk_hangs(self, host: int, seconds: float) -> None:
        self.hosts[host].disk.hang()
        self._until(seconds, self.hosts[host].disk.flow)

    def disk_fails(self, host: int, what: str, share: float, seconds: float) -> None:
        setattr(self.hosts[host].disk.faults, what, share)
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, what, 0.0))

    def disk_full(self, host: int, room: int, seconds: float) -> None:
        self.hosts[host].disk.faults.room_bytes = room
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, "room_bytes", None))

    def disk_read_only(self, host: int, seconds: float) -> None:
        self.hosts[host].disk.faults.read_only = True
        self._until(seconds, partial(setattr, self.hosts[host].disk.faults, "read_only", 0))

    def step(self, host: int, seconds: float) -> None:
        self.hosts[host].clock.offset_s = seconds

    def drift(self, host: int, rate: float) -> None:
        self.hosts[host].clock.drift = rate
