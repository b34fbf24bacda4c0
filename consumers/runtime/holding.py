"""Claims partitions for this life and gives them back at its end, so that only a death is left as one."""

from __future__ import annotations

import itertools
from collections.abc import Collection

from bridge.kafka.transport import Place
from consumers.runtime.ledger import Claim, Ledger
from consumers.runtime.share import Share


class Holding:
    """Knows what this process has claimed and not given back, whatever became of the claim."""

    def __init__(self, ledger: Ledger) -> None:
        """Hold nothing."""
        self._ledger = ledger
        # By the number of the claim.
        self._claims: dict[Place, int] = {}
        self._numbers = itertools.count()

    async def claim(self, place: Place) -> Claim:
        """Take a partition.

        Raises:
            TransientError: The database is away, or the owner before us is in the middle of a transaction.
        """
        again = place in self._claims
        self._claims[place] = next(self._numbers)
        return await self._ledger.claim(place, again=again)

    async def give_back(self, shares: Collection[Share]) -> None:
        """Say that what ends here is no death: neither of the process nor of a release that goes on elsewhere.

        Raises:
            TransientError: The database is away.
        """
        # The marks of a share are taken back once, whoever asks meanwhile.
        ending = [each for each in shares if not each.given_back]
        if not ending:
            return
        claims = {each.place: self._claims.get(each.place) for each in ending}
        for each in ending:
            each.given_back = True
        try:
            await self._ledger.give_back([each.ended() for each in ending])
        except BaseException:
            for each in ending:
                each.given_back = False
            raise
        for place, number in claims.items():
            if self._claims.get(place) == number:  # else it was claimed again
                self._claims.pop(place, None)
