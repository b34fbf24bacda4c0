"""In any order of events: no new event counts as known, and no durable one is written twice within its window."""

import asyncio
from dataclasses import dataclass, field
from hashlib import sha256
from typing import get_args

from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.event import Identity, Settled
from bridge.known.known_ids import KnownIds

WINDOW_S = 100
IDENTITIES = [
    Identity("drx", "evt_1", sha256(body).hexdigest(), reason) for body in (b"1", b"2") for reason in ("", "unusable")
]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["begin", "begin_new"]), st.sampled_from(IDENTITIES)),
        st.tuples(st.sampled_from(get_args(Settled)), st.sampled_from(IDENTITIES)),
        st.tuples(st.just("recalled"), st.sampled_from(IDENTITIES)),
        st.tuples(st.just("forget_spooled"), st.sampled_from(IDENTITIES)),
        st.tuples(st.just("wait"), st.sampled_from([1, 50, 100])),
    ),
    min_size=20,
    max_size=60,
)


@dataclass
class World:
    """An index, its clock, and all that is true about the identities, in plain words."""

    now_s: float = 1_700_000_000.0
    pending: set[Identity] = field(default_factory=set)
    spooled: set[Identity] = field(default_factory=set)
    committed_s: dict[Identity, float] = field(default_factory=dict)
    ever_durable: set[Identity] = field(default_factory=set)
    attached: list[tuple[Identity, asyncio.Future[Settled]]] = field(default_factory=list)
    dedupe: KnownIds = field(init=False)

    def __post_init__(self) -> None:
        """Begin with an index that knows nothing and has room for all."""
        self.dedupe = KnownIds(windows_s={"drx": WINDOW_S}, capacity=100, now=lambda: self.now_s)

    def remembered(self, identity: Identity) -> bool:
        """It is durable, and its window is not over."""
        return identity in self.spooled or self.committed_s.get(identity, 0.0) + WINDOW_S > self.now_s

    def rivals(self, identity: Identity) -> list[Identity]:
        """Those that have its id and another body; parked deliveries have none."""
        return [each for each in IDENTITIES if each[:2] == identity[:2] and each != identity and not each.reason] * (
            not identity.reason
        )

    def begin(self, identity: Identity) -> None:
        known = self.dedupe.begin([identity])
        rivals = self.rivals(identity)
        if known.conflict:
            assert any(each in self.ever_durable for each in rivals)
        elif known.rival is not None:
            assert any(each in self.pending for each in rivals)
        elif known.pending:
            assert identity in self.pending
            self.attached.append((identity, known.pending[0]))
        elif known.fresh:
            assert identity not in self.pending
            assert not self.remembered(identity)
            assert not any(self.remembered(each) or each in self.pending for each in rivals)
            self.pending.add(identity)
        else:
            assert self.remembered(identity)
            assert known.spooled == (identity in self.spooled)

    def begin_new(self, identity: Identity) -> None:
        """Events alone begin so; parked deliveries do not."""
        if identity.reason:
            return
        known = [identity, *self.rivals(identity)]
        is_new = self.dedupe.begin_new([identity])
        assert is_new != any(each in self.pending or self.remembered(each) for each in known)
        if is_new:
            self.pending.add(identity)

    def settle(self, identity: Identity, state: Settled) -> None:
        self.dedupe.settled(identity, state)
        self.pending.discard(identity)
        for whose, future in self.attached:
            assert future.done() == (whose not in self.pending)
            assert not future.done() or future.result() == state
        self.attached = [(whose, future) for whose, future in self.attached if not future.done()]
        if state != "failed":
            self.note(identity, spooled=state == "spooled")

    def recall(self, identity: Identity) -> None:
        self.dedupe.recalled(identity, self.now_s)
        self.note(identity, spooled=False)

    def note(self, identity: Identity, *, spooled: bool) -> None:
        """Something is durable; of two bodies the first committed one counts, else the first one."""
        self.ever_durable.add(identity)
        known = [each for each in self.rivals(identity) if self.remembered(each)]
        if any(spooled or each not in self.spooled for each in known):
            return
        self.spooled.difference_update(known)
        if not spooled:
            self.spooled.discard(identity)
            self.committed_s[identity] = self.now_s
        elif not self.remembered(identity):
            self.spooled.add(identity)
        for each in self.rivals(identity):
            self.committed_s.pop(each, None)


@settings(max_examples=200)
@given(STEPS)
def test_it_knows_exactly_what_is_durable_or_on_its_way(steps: list[tuple[str, Identity | int]]) -> None:
    async def play() -> None:
        world = World()
        for name, what in steps:
            if isinstance(what, int):
                world.now_s += what
            elif name == "begin":
                world.begin(what)
            elif name == "begin_new":
                world.begin_new(what)
            elif name == "recalled":
                world.recall(what)
            elif name == "forget_spooled":
                world.dedupe.forget_spooled()
                world.spooled.clear()
            else:
                world.settle(what, name)  # type: ignore[arg-type]  # one of its words
            for each in IDENTITIES:
                is_committed = bool(world.dedupe.in_topic(each))
                assert is_committed <= (each in world.ever_durable)
                is_otherwise = world.dedupe.in_topic(each) is False
                assert is_otherwise == any(map(world.dedupe.in_topic, world.rivals(each)))
                assert not world.remembered(each) or is_committed == (each not in world.spooled)

    asyncio.run(play())
