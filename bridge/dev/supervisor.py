"""Start again what died, not faster than makes sense, and say so."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from bridge.dev.processes import Child

# A process that lived this long was well; one that did not waits before it is tried again, twice as long each time.
_WELL_AFTER_S = 10.0
_DELAY_FIRST_S = 0.5
_DELAY_MAX_S = 10.0


class Supervisor:
    """Keeps children running; `tend` is called again and again by whoever owns the time."""

    def __init__(
        self,
        children: Sequence[Child],
        *,
        restart: bool,
        now: Callable[[], float],
        changed: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """Watch `children`, all of which run.

        Args:
            children: In the order in which they started.
            restart: False: only notice that one died.
            now: Monotonic seconds.
            changed: Called after every change of a pid.
            say: Gets a line for people.
        """
        self._watched = [_Watched(child, started=now()) for child in children]
        self._left: set[str] = set()
        self._restart = restart
        self._now = now
        self._changed = changed
        self._say = say

    def leave(self, children: Iterable[Child]) -> None:
        """Leave these alone, dead or alive, until `watch`."""
        self._left.update(child.name for child in children)

    def watch(self, children: Iterable[Child]) -> None:
        """Look after these again; they run."""
        names = {child.name for child in children}
        for watched in self._watched:
            if watched.child.name in names:
                watched.started(self._now())
        self._left -= names

    def tend(self) -> None:
        """Look at each child once; never waits."""
        changes = [self._tend(watched) for watched in self._watched if watched.child.name not in self._left]
        if any(changes):
            self._changed()

    def _tend(self, watched: _Watched) -> bool:
        """Whether the pid has changed."""
        child = watched.child
        if child.alive:
            return False
        if watched.start_at is None:
            watched.died(self._now())
            self._say(f"{child.name} ended with {child.exit_code}; see {child.log}")
            return True
        if not self._restart or self._now() < watched.start_at:
            return False
        child.start()
        watched.started(self._now())
        self._say(f"{child.name} started again, pid {child.pid}")
        return True


class _Watched:
    """A child, and when it may be started again."""

    def __init__(self, child: Child, *, started: float) -> None:
        self.child = child
        self.start_at: float | None = None
        self._started = started
        self._delay_s = 0.0

    def died(self, now: float) -> None:
        was_well = now - self._started >= _WELL_AFTER_S
        self._delay_s = 0.0 if was_well else min(max(_DELAY_FIRST_S, 2 * self._delay_s), _DELAY_MAX_S)
        self.start_at = now + self._delay_s

    def started(self, now: float) -> None:
        self.start_at = None
        self._started = now
