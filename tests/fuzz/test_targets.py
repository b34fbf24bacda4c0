"""Each target holds for the corpus, and for some mutations of it; `make fuzz` runs a million."""

import random

import pytest

from tests.fuzz.targets import TARGETS, Target, read_corpus

# Of each share, so that no target takes longer than some seconds.
MUTANTS = 20
# A tenth of a second to read it, and to see what a change of it changes.
CORPUS_MAX_BYTES = 512 * 1024


def mutant(rng: random.Random, corpus: list[bytes], words: list[bytes]) -> bytes:
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
