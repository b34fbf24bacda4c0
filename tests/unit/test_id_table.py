"""The compact table behaves like a dict, and evicts entries in the right order."""

from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from bridge.known.id_table import NEVER, IdTable

# Equal low bits chain; signs and the edges of 64 bits must not matter.
KEYS = st.sampled_from([0, 1, -1, 8, 16, 24, -8, 1 << 62, (1 << 63) - 1, -(1 << 63), 7, 15])
BODIES = st.sampled_from([0, 1, (1 << 64) - 1])
MARKS = st.integers(0, 255)
# Rings are 64 s; the clock of the test moves over several of them.
EXPIRIES = st.one_of(st.integers(0, 1000), st.sampled_from([NEVER, NEVER - 1]))
NOWS = st.integers(0, 1000)


@dataclass
class Model:
    """A dict, and the plain search for what goes next."""

    capacity: int
    held: dict[int, tuple[int, int, int, int]] = field(default_factory=dict)
    early: int = 0
    turns: int = 0

    def add(self, key: int, body: int, mark: int, expires: int, now: int) -> None:
        for _ in range(2):
            soonest = self.soonest()
            if soonest is not None and self.held[soonest][2] <= now:
                del self.held[soonest]
            else:
                break
        if len(self.held) >= self.capacity:
            soonest = self.soonest()
            assert soonest is not None
            self.early += self.held.pop(soonest)[2] > now
        self.put(key, body, mark, expires)

    def put(self, key: int, body: int, mark: int, expires: int) -> None:
        self.turns += 1
        self.held[key] = (body, mark, expires, self.turns)

    def soonest(self) -> int | None:
        return min(self.held, key=lambda key: (self.held[key][2] >> 6, self.held[key][3]), default=None)


@given(st.integers(1, 9), st.lists(st.tuples(KEYS, BODIES, MARKS, EXPIRIES, NOWS), max_size=60))
def test_it_holds_what_a_dict_would_hold(capacity: int, steps: list[tuple[int, int, int, int, int]]) -> None:
    early: list[None] = []
    table, model = IdTable(capacity, evicted_early=lambda: early.append(None)), Model(capacity)

    for key, body, mark, expires, now in steps:
        entry = table.find(key)
        assert bool(entry) == (key in model.held)
        if entry:
            table.change(entry, body, mark, expires=expires)
            model.put(key, body, mark, expires)
        else:
            table.add(key, body, mark, expires=expires, now=now)
            model.add(key, body, mark, expires, now)
        assert len(table) == len(model.held)
        for known, (its_body, its_mark, its_expires, _) in model.held.items():
            found = table.find(known)
            assert (table.bodies[found], table.states[found], table.expiries[found]) == (
                its_body,
                its_mark,
                its_expires,
            )
    assert len(early) == model.early


def test_kept_and_released_again_and_again_leaves_nothing_behind() -> None:
    """As a spool does that is drained at once: no list may grow by it."""
    table = IdTable(4)
    table.add(1, 0, 0, expires=NEVER, now=0)

    for now in range(1000):
        table.change(table.find(1), 0, 0, expires=now)
        table.change(table.find(1), 0, 0, expires=NEVER)

    rings = 1000 // 64 + 1
    assert (len(table), len(table._soonest), len(table._rings)) == (1, rings, rings + 1)
