"""An event loop whose clock stands still while something runs and jumps to the next timer when nothing does."""

import asyncio
import selectors


class _Jumping(selectors.SelectSelector):
    """Never blocks: what would be waited for is added to the clock instead."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if not ready and timeout is None:
            msg = "nothing will ever happen again"
            raise RuntimeError(msg)
        if not ready and timeout:
            self.now += timeout
        return ready


class VirtualLoop(asyncio.SelectorEventLoop):
    """A loop of one thread and no network, whose time costs nothing."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now
