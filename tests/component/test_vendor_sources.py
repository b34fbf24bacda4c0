"""What the simulated vendors push is proved, read and published: a real socket, no broker."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest

from bridge.dev.simulator import Answer, RetryPolicy, Sender, play
from bridge.dev.sources import SOURCES
from bridge.dev.story import deliveries
from bridge.ingress.profiles.lookup import load_profile
from bridge.ingress.proof import FixedSecrets, KeySlot
from bridge.ingress.routes import Source
from bridge.ingress.schemes.presets import configure
from tests.component.test_ingress import running

COUNT = 40


@pytest.mark.parametrize("name", SOURCES)
async def test_a_vendor_is_answered_and_its_events_are_published(name: str, tmp_path: Path) -> None:
    vendor, file = SOURCES[name], tmp_path / "current"
    file.write_text(vendor.new_secret())
    scheme = configure(vendor.scheme, dict(vendor.parameters), tolerance_s=300)
    profile = load_profile(vendor.profile, vendor.options)
    slot = KeySlot(name="current", key=scheme.parse_key(file.read_text()))
    types = tuple(each.encode() for each in getattr(profile, "CONTENT_TYPES", ()))
    source = Source("drx", "sandbox", profile, scheme, FixedSecrets((slot,)), content_types=types)
    answers: list[Answer] = []

    async with running(sources=[source]) as ingress:
        sender = Sender(
            session=ingress.session,
            url=f"http://127.0.0.1:{ingress.port}/webhooks/drx",
            sign=vendor.signer(file),
            policy=RetryPolicy(attempts=1),
            rng=random.Random(1),  # noqa: S311 - jitter
            content_type=vendor.content_type,
        )
        stories = itertools.islice(deliveries(source=name, seed=7), COUNT)
        await play(sender, stories, rate=None, concurrency=1, on_answer=answers.append)
        published = list(ingress.publisher.published)

    assert {(answer.reply.status, answer.reply.outcome) for answer in answers} == {(200, "accepted")}
    assert len(answers) == COUNT <= len(published)
