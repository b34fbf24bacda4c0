"""Any body or edited valid body, with any headers: the fast path returns the reference's result or defers."""

import sys

from tests.fast_path_cases import (
    NAMES,
    PIECES,
    TYPES,
    VALUES,
    a_head,
    a_text,
    check_fast_path,
    edited,
    fast_path,
    full_document,
    samples,
    spellings,
)
from tests.fuzz.choices import Choices

WORDS = (*VALUES, *NAMES, *PIECES)
EDITS_MAX = 4
TEXTS = (*samples(), *(a_text(each) for kind in TYPES for each in spellings(full_document(kind))))
if atheris := sys.modules.get("atheris"):  # what is generated is no module, so it is instrumented by hand
    for each in TYPES:
        atheris.instrument_func(fast_path("drx", "sandbox").encoders[each])


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
    check_fast_path(body, head)
