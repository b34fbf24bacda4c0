"""Post an operator's deliveries to the running ingress, for `unrecognized replay` and `push`."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterable, Callable, Mapping
from contextlib import suppress
from datetime import datetime, tzinfo
from functools import partial
from typing import Any, Literal

import click
import orjson
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from bridge.errors import BridgeError, ConfigError
from bridge.event import ParkReason
from bridge.mapping.lookup import open_profiles
from bridge.mapping.preview import map_body
from bridge.mapping.profile import Mapped
from bridge.proof.origin import SLOT, operator_keys, sign_origin
from bridge.proof.secrets import load
from bridge.runtime.lifecycle import first_fault
from bridge.sender.sender import Post, RetryPolicy, Sender, open_session, play, webhook_url
from bridge.sender.signing import Sign, read_signer
from bridge.settings import Settings
from bridge.sources import configured_source, scheme_of, slots_dir

# Retries for about ten seconds. Then the command ends; nothing is lost, and a repeated command continues.
POLICY = RetryPolicy(attempts=6, delay_max_s=8.0)
# Statuses caused by a single delivery; any other 4xx would affect all.
REFUSED = (400, 413)


class PostError(BridgeError):
    """The ingress accepts nothing; the message is one line for an operator."""

    code = "not_posted"


class Poster:
    """Posts deliveries of one source."""

    def __init__(self, settings: Settings, name: str, *, origin: Literal["replay", "import"], url: str | None) -> None:
        """Build the profile of the source; if `url` is given, also read the secret that became valid last."""
        source = configured_source(settings, name)
        self._origin, profile = origin, open_profiles(settings.sources)[name]
        self._map = partial(map_body, profile, source=name, environment=source.environment)
        self._type = "application/json" if source.body == "json" else "application/xml"
        self.zone: tzinfo | None = getattr(profile, "zone", None)
        self._outcomes: Counter[str] = Counter()
        self._is_whole = False
        self._rng = random.Random()  # noqa: S311 - spreads load, not for security
        if url is not None:
            scheme, now = scheme_of(name, source), time.time()
            directory = slots_dir(scheme, source)
            slots = operator_keys(scheme, load(directory, scheme)) if directory else []
            counting = [slot for slot in slots if slot.counts_at(now)]
            if not counting:
                create = f"drx-bridge secrets new {name} --slot {SLOT}"
                raise ConfigError(f"source {name}: no secret to post with, create one: `{create}`")
            slot = max(counting, key=lambda slot: slot.not_before)
            self._key = slot.key
            self._sign: Sign | None = None
            # For a proxy before the ingress that verifies the scheme; the ingress needs only our own headers.
            with suppress(ConfigError):
                self._sign = read_signer(scheme, directory / slot.name) if directory and slot.name != SLOT else None
            self._url = webhook_url(url, name)

    def mapped(self, body: bytes, received_at: datetime, *, delivery_id: str = "") -> tuple[str, Mapped | ParkReason]:
        """Return the id of a delivery and the outcome of its body with these settings."""
        return self._map(body, received_at=received_at, delivery_id=delivery_id)

    def note(self, name: Mapping[str, Any], outcome: str, reason: str = "", field: str = "") -> None:
        """Count an outcome, and print it if it was not accepted, without values of the body."""
        self._outcomes[outcome] += 1
        if reason:
            click.echo(orjson.dumps({**name, "outcome": outcome, "reason": reason, "field": field or None}))

    def run(self, posts: AsyncIterable[Post], *, lanes: int, rate: float | None) -> int:
        """Post all with a progress bar; return 1 if a delivery was not accepted or the run was cut short."""
        people, failed = Console(stderr=True, highlight=False, soft_wrap=True), ""
        columns = *Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn()
        try:
            with Progress(*columns, console=people, transient=True, disable=not people.is_terminal) as progress:
                task = progress.add_task("Deliveries", total=None)
                asyncio.run(self._run(posts, lanes=lanes, rate=rate, advance=partial(progress.advance, task)))
        except ExceptionGroup as group:
            fault = first_fault(group, BridgeError)
            if fault is None or not self._outcomes:
                raise fault or group from None
            failed = f"; stopped: {fault}"
        counted = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(self._outcomes.items()))
        people.print(f"{counted or 'nothing to post'}{failed}", markup=False)
        self._is_whole = not (failed or self._outcomes.keys() & {"parked", "refused", "skipped"})
        return int(not self._is_whole)

    @property
    def ended(self) -> dict[str, Any]:
        """Fields of the second audit line."""
        return {"outcomes": dict(self._outcomes)} | ({} if self._is_whole else {"outcome": "failed"})

    async def _run(
        self, posts: AsyncIterable[Post], *, lanes: int, rate: float | None, advance: Callable[[], None]
    ) -> None:
        async with open_session() as session:

            async def deliver(post: Post) -> None:
                sign = partial(self._headers, post)
                sender = Sender(
                    session=session, url=self._url, sign=sign, policy=POLICY, rng=self._rng, content_type=self._type
                )
                reply = (await sender.deliver(post)).reply
                if not reply.outcome or not (reply.taken or reply.status in REFUSED):
                    msg = f"{self._url}: {reply}; nothing is lost, and a repeated command continues where this stopped"
                    raise PostError(msg)
                self.note(post.name, reply.outcome, reply.reason, reply.field)
                advance()

            await play(posts, deliver, rate=rate, concurrency=lanes)

    def _headers(self, post: Post, delivery_id: str, timestamp: int, body: bytes) -> dict[str, str]:
        what = delivery_id, timestamp, body
        own = sign_origin(self._key, *what, origin=self._origin, received_us=post.received_us)
        return own if self._sign is None else self._sign(*what) | own
