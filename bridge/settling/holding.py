"""Claims partitions for this life and gives them back at its end, so that only a death is left as one."""

from __future__ import annotations

import asyncio
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
        self._giving_back = asyncio.Lock()

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
        async with self._giving_back:  # or two at a time would take the same marks back twice
            held = [each for each in shares if not each.given_back]
            if held:
                await self._ledger.give_back([each.ended() for each in held])
            for each in held:
                each.given_back = True
                self._places.discard(each.place)
