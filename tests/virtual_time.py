"""An event loop with a virtual clock: it stops while callbacks run, and jumps to the next timer when idle."""

import asyncio
import selectors

# Sixty times the longest wait of a test; reached in seconds.
TURNS_MAX = 100_000


class _Jumping(selectors.SelectSelector):
    """Never blocks: the waiting time is added to the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self._turns = 0  # of the loop, at this moment

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        self._turns += 1
        if not ready and timeout:
            self.now += timeout
            self._turns = 0
        assert self._turns < TURNS_MAX, "something runs without end while no time passes"
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of one thread without network, in virtual time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
