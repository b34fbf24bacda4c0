"""Any body, and any edits of a good one, under any head: the engine answers as the reference does, or not at all."""

from __future__ import annotations

import random
import sys

from tests.engine_cases import (
    NAMES,
    PIECES,
    TYPES,
    VALUES,
    Text,
    a_head,
    a_text,
    check_engine,
    compiled,
    edited,
    engine,
    made,
    samples,
)
from tests.fuzz.choices import Choices

WORDS = (*VALUES, *NAMES, *PIECES)
# Bodies made of each type, besides the samples.
MADE_EACH = 20
EDITS_MAX = 4


def texts() -> tuple[Text, ...]:
    rng = random.Random(1)  # noqa: S311 - the same bodies in every run
    return (
        *samples(),
        *(made(event_type, Choices(rng.randbytes(200))) for event_type in TYPES for _ in range(MADE_EACH)),
    )


TEXTS = texts()
if atheris := sys.modules.get("atheris"):  # what is generated is no module, so it is instrumented by hand
    for each in TYPES:
        atheris.instrument_func(compiled()[each])


def check(content: bytes) -> None:
    choices = Choices(content)
    text = choices.one(TEXTS)
    head = a_head(text, choices)
    if choices.below(8) == 1:
        body = choices.rest()
    else:
        for _ in range(EDITS_MAX):
            if choices.is_used_up:
                break
            text = a_text(edited(text, choices))
        body = text.body
    check_engine(body, head, engine)
