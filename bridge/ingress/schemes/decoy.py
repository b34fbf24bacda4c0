"""The proof of a name that no source has: that of a configured scheme, with keys that never count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, NoReturn

from bridge.ingress.proof import UNKNOWN_KEY, KeySlot, Raw, Scheme, Secrets, decoys, refuse


class Configured(NamedTuple):
    """The scheme of a source, and its keys as they stand now."""

    scheme: Scheme
    secrets: Secrets


class Decoy(Scheme):
    """Proves with the configured scheme of which a delivery has most credentials, else with the first one, and refuses.

    A name is no secret: each source takes its own scheme only, so a credential of another scheme or encoding, an
    allowed network or a rate limit may tell that a name exists. It never helps to prove anything.
    """

    name = "unknown"
    keyed = False

    def __init__(self, configured: Sequence[Configured]) -> None:
        # Of equal schemes the first one is used, so the others would only be read in vain.
        distinct: dict[str, Configured] = {}
        for scheme, secrets in configured:
            distinct.setdefault(scheme.describe(), Configured(scheme, DecoySecrets(secrets)))
        self._configured = list(distinct.values())
        self.reads_query = any(scheme.reads_query for scheme, _ in configured)
        self.reads_peer = any(scheme.reads_peer for scheme, _ in configured)

    def credentials(self, raw: Raw) -> int:
        """Count those of all sources."""
        return sum(scheme.credentials(raw) for scheme, _ in self._configured)

    def prove(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> NoReturn:
        """Refuse, after the work of a proof."""
        del keys
        found = max(self._configured, key=lambda each: each.scheme.credentials(raw))  # of equals the first
        found.scheme.prove(raw, found.secrets.keys, now)
        refuse("signature_mismatch", reason=UNKNOWN_KEY)  # a scheme without keys may have found nothing wrong

    def describe(self) -> str:
        """Give its only word."""
        return self.name


class DecoySecrets:
    """Keys like those of a source that exists, which never count."""

    def __init__(self, like: Secrets) -> None:
        self._like = like
        self._of: Sequence[KeySlot] | None = None
        self._keys: tuple[KeySlot, ...] = ()

    @property
    def keys(self) -> tuple[KeySlot, ...]:
        """Made when the originals change: making them at each delivery could be timed."""
        current = self._like.keys
        if current is not self._of:
            self._of, self._keys = current, decoys(current)
        return self._keys
