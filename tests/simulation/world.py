"""One world: a loop, the random streams of its seed, its clocks, and the trace of its events."""

import hashlib
import random
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.loop import SimulatedLoop

# Unix seconds of the first moment of every world, whatever the day is.
BEGINNING = 1_789_398_566.0


@dataclass(eq=False)
class Clock:
    """The time of day of one host; `offset_s` is its error, and `drift` the growth of the error per second."""

    world: "World"
    offset_s: float = 0.0
    drift: float = 0.0

    def now(self) -> float:
        """Return Unix seconds."""
        world = self.world
        since_s = world.loop.time() - world.began
        return BEGINNING + since_s * (1 + self.drift) + world.skipped_s + self.offset_s

    def now_ns(self) -> int:
        return int(self.now() * 1_000_000) * 1000


@dataclass(eq=False)
class World:
    """Everything runs on `loop`; all random choices come from `stream`."""

    seed: int
    loop: SimulatedLoop = field(default_factory=SimulatedLoop)
    verbose: bool = False  # keep the lines of the trace, for a story
    skipped_s: float = 0.0  # of quiet times, which all clocks have passed and the loop has not

    def __post_init__(self) -> None:
        self.began = self.loop.time()
        self.context: Context = copy_context()
        self.lines: list[str] = []
        self._digest = hashlib.sha256()
        self.true_clock = Clock(self)

    def stream(self, name: str) -> random.Random:
        """Return the random stream of one actor, independent of those of others."""
        return random.Random(f"{self.seed} {name}")  # noqa: S311 - decides a test, guards nothing

    def later(self, delay_s: float, call: Callable[[], Any]) -> None:
        """Run a call after a time, in the world and not in the calling process."""
        self.loop.call_later(max(0.0, delay_s), call, context=self.context)

    def soon(self, call: Callable[[], Any]) -> None:
        self.loop.call_soon(call, context=self.context)

    @property
    def at_s(self) -> float:
        """Seconds since the start, quiet times included."""
        return self.loop.time() - self.began + self.skipped_s

    def note(self, actor: str, *what: object) -> None:
        """Add an event to the trace."""
        line = f"{self.at_s:11.4f} {actor:<8} {' '.join(map(str, what))}"
        self._digest.update(line.encode())
        if self.verbose:
            self.lines.append(line)

    def mark(self, *what: object) -> None:
        """Add to the trace what is too small for a story."""
        self._digest.update(f"{self.loop.time()} {what}".encode())

    @property
    def trace(self) -> str:
        """Digest of all traced events."""
        return self._digest.hexdigest()[:16]
