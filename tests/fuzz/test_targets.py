"""Each target holds for the inputs that are kept, and for a few spoilt ones; `make fuzz` tries a million."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bridge.event import EncodedEvent
from bridge.ingress.profiles import drx_standard
from bridge.ingress.proof import Proof, Raw
from bridge.ingress.routes import Engine
from bridge.spool.segment import Scan, scan
from tests.engine_cases import engine
from tests.fuzz import codec, engines, mapping, schemes, signatures, spool, strict_json, vendors
from tests.fuzz.targets import TARGETS, Target, read_corpus, write_corpus
from tests.logs import capture_logs
from tests.schemes import VERIFIED

# Of each share, so that no target takes longer than some seconds.
MUTANTS = 20
# A tenth of a second to read it, and to see what a change of it changes.
CORPUS_MAX_BYTES = 512 * 1024


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    with capture_logs():
        yield


def mutant(rng: random.Random, corpus: list[bytes], words: list[bytes]) -> bytes:
    """Change some bytes of an input in ways that fuzzers do."""
    content = bytearray(rng.choice(corpus))
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(len(content) + 1)
        match rng.randrange(5):
            case 0:
                content[at : at + 1] = rng.randbytes(1)
            case 1:
                del content[at : at + rng.choice((1, 2, 8, 40))]
            case 2:
                content[at:at] = rng.choice(words)
            case 3:
                content[at:at] = rng.randbytes(rng.randrange(1, 9))
            case _:
                other = rng.choice(corpus)
                content[at:] = other[rng.randrange(len(other) + 1) :]
    return bytes(content)


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_target_holds_for_what_is_kept_and_for_its_neighbours(target: Target) -> None:
    corpus, check = read_corpus(target.corpus), target.check()
    rng = random.Random(target.name)  # noqa: S311 - a seed is replayed

    assert corpus
    assert target.corpus.stat().st_size < CORPUS_MAX_BYTES
    for content in corpus:
        check(content)
    for _ in range(MUTANTS * target.share):
        check(mutant(rng, corpus, list(target.words()))[: target.max_bytes])


class Credulous:
    """Proves whatever it is given."""

    @staticmethod
    def prove(raw: Raw, *_: object) -> Proof:
        return Proof(raw.heads.get(b"webhook-id", b"").decode("latin-1"), 0, "current")


def lenient_parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return {}


class LossyProfile:
    """Reads less than there is."""

    @staticmethod
    def map(delivery: Any, document: dict[str, Any]) -> Any:
        return drx_standard.map(delivery, {name: value for name, value in document.items() if name != "sequence"})


def forgetful_engine(source: str, environment: str) -> Engine:
    """Answers without one member."""

    def answer(body: bytes, webhook_id: str, received_at: datetime) -> EncodedEvent | None:
        try:
            document = json.loads(body)
            document.pop("sequence", None)
            return engine(source, environment)(json.dumps(document).encode(), webhook_id, received_at)
        except (ValueError, AttributeError):
            return None

    return answer


def lossy_map(profile: Any, delivery: Any, document: Any) -> Any:
    outcome = profile.map(delivery, document)
    for event in getattr(outcome, "events", ()):
        event.value["extensions"].clear()
    return outcome


def credulous_decode(payload: bytes, headers: list[tuple[str, bytes]]) -> Any:
    return {} if payload and not headers else None


def hasty_scan(content: bytes, **said: Any) -> Scan:
    found = scan(content, **said)
    return found._replace(records=found.records[:1])


def raises(check: Callable[[bytes], None], content: bytes) -> bool:
    """Say whether a fuzzer would report this input."""
    try:
        check(content)
    except Exception:  # noqa: BLE001 - whatever it is
        return True
    return False


async def forgetful(*_: object) -> list[object]:
    return []


@pytest.mark.parametrize(
    ("target", "module", "name", "fault"),
    [
        ("signatures", signatures, "SCHEME", Credulous),
        ("schemes", schemes, "verdict", lambda *_: VERIFIED),
        ("strict_json", strict_json, "parse", lenient_parse),
        ("mapping", mapping, "drx_standard", LossyProfile),
        ("engine", engines, "engine", forgetful_engine),
        *((f"vendor_{name}", vendors, "map_with", lossy_map) for name in ("digitalrx", "dosespot", "photon")),
        ("codec", codec, "decode", credulous_decode),
        ("spool_scan", spool, "scan", hasty_scan),
        ("spool_recovery", spool, "opened", forgetful),
    ],
)
def test_a_target_sees_a_fault(
    target: str, module: Any, name: str, fault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (found,) = [each for each in TARGETS if each.name == target]
    monkeypatch.setattr(module, name, fault)

    assert any(map(partial(raises, found.check()), read_corpus(found.corpus)))


def test_a_corpus_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "inputs.txt"
    write_corpus(path, [b"bb", b"", b"a", b"bb"])

    assert read_corpus(path) == [b"", b"a", b"bb"]
