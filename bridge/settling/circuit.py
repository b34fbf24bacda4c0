"""Whether a sink may be called: closed, open, or half open for a probe."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

from bridge.settling.failure import DELAY_MAX_S, Spread, delay_s

State = Literal["closed", "open", "half_open"]

# Before the first probe: long enough for a lost connection to be seen as such, short enough to go unnoticed.
PROBE_FIRST_S = 0.5
# Keys remembered for having failed: as many as the records with which a window counts as full.
SUSPECTS_MAX = 1024
# Keys that may be found at fault in a row, none passing in between; an outage has more.
BLAMED_MAX = 2


class Circuit:
    """The circuit of one sink; it probes for ever, since nothing is lost by waiting.

    A key that fails systemically, and fails so again after other keys have passed, is no sign of a sink that is away:
    its record is at fault, and the circuit takes no notice of it any more. But not while other keys fail as well: what
    passed in between was a moment's luck in an outage then.
    """

    def __init__(self, *, spread: Spread, first_s: float = PROBE_FIRST_S, max_s: float = DELAY_MAX_S) -> None:
        """Start closed; `spread` draws the delays between probes."""
        self._spread = spread
        self._first_s = first_s
        self._max_s = max_s
        self._suspects: dict[Hashable, int] = {}
        self._passed = 0
        # Keys that failed since one has passed: for the sink's sake (two will do to know of another), or for their own.
        self._failing: set[Hashable] = set()
        self._blamed: set[Hashable] = set()
        self._failures = 0
        self._probe_at = 0.0
        self._probing = False
        self.state: State = "closed"

    @property
    def closed(self) -> bool:
        """True while the sink may be called freely."""
        return self.state == "closed"

    def suspects(self, key: Hashable) -> bool:
        """Whether this key failed and has not passed since: another one makes the better probe."""
        return key in self._suspects

    def wait_s(self, now: float) -> float:
        """Return how long until a probe may start; 0 when it may."""
        return 0.0 if self.closed else max(0.0, self._probe_at - now)

    def probe(self, now: float) -> bool:
        """Ask for the one probe; True: call the sink once and tell how it went."""
        if self.closed or self._probing or now < self._probe_at:
            return False
        self._probing = True
        self.state = "half_open"
        return True

    def passed(self, *keys: Hashable) -> None:
        """Note that the sink answered for records of `keys`, or of none: it is there."""
        if keys:
            self._passed += 1
            self._failing.clear()
            self._blamed.clear()
        for key in keys if self._suspects else ():
            self._suspects.pop(key, None)
        self._failures = 0
        self._probing = False
        self.state = "closed"

    def failed(self, key: Hashable = None, *, now: float) -> bool:
        """Note a systemic failure; True when it is the record's own, and the circuit is as it was before the call."""
        if key is not None:
            if self._at_fault(key):
                self._blamed.add(key)
                self.stopped(now=now)
                return True
            self._remember(key)
            if len(self._failing) < 2:  # noqa: PLR2004 - said above
                self._failing.add(key)
        probed, self._probing = self._probing, False
        if self.closed or probed:
            self._failures += 1
            self._open(now)
        return False

    def stopped(self, *, now: float, called: bool = True) -> None:
        """Note that a probe ended without word from the sink; another may start, at once if it was not `called`."""
        if self._probing:
            self._probing = False
            self._open(now)
            if not called:
                self._probe_at = now

    def _at_fault(self, key: Hashable) -> bool:
        before = self._suspects.get(key, self._passed)
        return before < self._passed and not self._failing - {key} and len(self._blamed - {key}) < BLAMED_MAX

    def _open(self, now: float) -> None:
        self.state = "open"
        attempt = max(1, self._failures)
        self._probe_at = now + delay_s(attempt, spread=self._spread, first_s=self._first_s, max_s=self._max_s)

    def _remember(self, key: Hashable) -> None:
        if key not in self._suspects and len(self._suspects) >= SUSPECTS_MAX:
            del self._suspects[next(iter(self._suspects))]
        self._suspects.setdefault(key, self._passed)
