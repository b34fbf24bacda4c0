"""Ask again for topics that the metadata of a client lack; by itself it would do so once a minute."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

# A broker that lags behind the others knows a new topic within this time.
LOOK_S = 1.0
# A topic that is away for long costs its brokers, and the log, no more than this.
LOOK_MAX_S = 10.0


class MissingTopics:
    """Watches one client.

    A member that leads its group hands out what its own metadata know: nothing of a topic of which the broker that it
    asked has not heard yet, though another has.
    """

    def __init__(self, client: Any, topics: Sequence[str], *, now: Callable[[], float] = time.monotonic) -> None:
        """Take a client that was told to keep the metadata of `topics`."""
        self._client = client
        self._topics = topics
        self._now = now
        self._wait_s = LOOK_S
        self._look_at = now()

    def look(self) -> None:
        """Have the metadata renewed in the background if they lack a topic; to be called often."""
        now = self._now()
        if now < self._look_at:
            return
        known = all(self._client.cluster.partitions_for_topic(topic) for topic in self._topics)
        if known:
            self._wait_s = LOOK_S
        self._look_at = now + self._wait_s
        if not known:
            self._client.force_metadata_update()
            self._wait_s = min(2 * self._wait_s, LOOK_MAX_S)
