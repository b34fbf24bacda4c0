"""What the simulator sends: files as they are, or a seeded stream, repeated and shuffled as asked."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from bridge.dev.generator import Outgoing
from bridge.errors import ConfigError

# docs/contract.md §1: a webhook id is 1 to 200 printable ASCII characters without space.
WEBHOOK_ID = re.compile(r"[\x21-\x7e]{1,200}")
# A repeated delivery comes up to this many deliveries after the first: a sender's retry is rarely the very next thing.
REPEAT_WITHIN = 10


def read_sample(path: Path, *, rng: random.Random) -> Outgoing:
    """Take a file's bytes exactly as the body, malformed ones too."""
    return _outgoing(_read(path), rng=rng)


def read_scenario(path: Path, *, rng: random.Random) -> list[Outgoing]:
    """Take each line that is not blank as one body."""
    lines = [line.removesuffix(b"\r") for line in _read(path).split(b"\n")]
    outgoings = [_outgoing(line, rng=rng) for line in lines if line.strip()]
    if not outgoings:
        msg = f"{path}: no deliveries in it; expected one JSON body per line"
        raise ConfigError(msg)
    return outgoings


def arrange(
    outgoings: Iterable[Outgoing], *, rng: random.Random, duplicates: float, shuffle: bool
) -> Iterator[Outgoing]:
    """Repeat deliveries with probability `duplicates`, and mix everything up if asked to."""
    repeated = _repeat(outgoings, rng=rng, probability=duplicates)
    if not shuffle:
        return repeated
    mixed = list(repeated)
    rng.shuffle(mixed)
    return iter(mixed)


def _repeat(outgoings: Iterable[Outgoing], *, rng: random.Random, probability: float) -> Iterator[Outgoing]:
    pending: list[tuple[int, Outgoing]] = []
    for number, outgoing in enumerate(outgoings):
        yield outgoing
        if rng.random() < probability:
            pending.append((number + rng.randrange(REPEAT_WITHIN), outgoing))
        yield from (late for due, late in pending if due <= number)
        pending = [(due, late) for due, late in pending if due > number]
    yield from (late for _, late in pending)


def _outgoing(body: bytes, *, rng: random.Random) -> Outgoing:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    webhook_id = document.get("id") if isinstance(document, dict) else None
    if not isinstance(webhook_id, str) or not WEBHOOK_ID.fullmatch(webhook_id):
        webhook_id = f"msg_{rng.getrandbits(128):032x}"
    return Outgoing(webhook_id, body)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as exc:
        msg = f"{path}: cannot read it ({exc.strerror})"
        raise ConfigError(msg) from None
