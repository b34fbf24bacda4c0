"""Claims partitions for this life and gives them back at its end, so that only a death is left as one."""

from __future__ import annotations

from collections.abc import Collection

from bridge.kafka.transport import Place
from bridge.settling.claims import Claim
from bridge.settling.ledger import Ledger
from bridge.settling.share import Share


class Holding:
    """Knows what this process has claimed and not given back, whatever became of the claim."""

    def __init__(self, ledger: Ledger) -> None:
        """Hold nothing."""
        self._ledger = ledger
        self._places: set[Place] = set()

    async def claim(self, place: Place) -> Claim:
        """Take a partition.

        Raises:
            TransientError: The database is away, or the owner before us is in the middle of a transaction.
        """
        again = place in self._places
        self._places.add(place)
        return await self._ledger.claim(place, again=again)

    async def give_back(self, shares: Collection[Share]) -> None:
        """Say that what ends here is no death: neither of the process nor of a release that goes on elsewhere.

        Raises:
            TransientError: The database is away.
        """
        if shares:
            await self._ledger.give_back([each.ended() for each in shares])
            self._places.difference_update(each.place for each in shares)
            for each in shares:
                each.unmark()
