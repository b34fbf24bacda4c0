"""One configured sender, as the public port sees it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bridge.ingress.profiles.profile import Profile
from bridge.ingress.signatures import KeySlot


@dataclass(frozen=True, slots=True)
class Source:
    """One configured sender.

    Attributes:
        name: Last segment of its path.
        environment: What it may send.
        profile: Its dialect.
        keys: Its key slots, asked for at each delivery since they are reloaded.
        tolerance_s: How far a delivery's timestamp may be off, or None.
        internal: It is ourselves: its clock is no sender's.
    """

    name: str
    environment: str
    profile: Profile
    keys: Callable[[], Sequence[KeySlot]]
    tolerance_s: int | None
    internal: bool = False
