"""Any body or edited valid body, with any headers: the fast path returns the reference's result or defers."""

import sys

from tests import fast_path_cases as cases
from tests.fuzz.choices import Choices

WORDS = (*cases.VALUES, *cases.NAMES, *cases.PIECES)
EDITS_MAX = 4
TEXTS = (
    *cases.samples(),
    *(cases.a_text(each) for kind in cases.TYPES for each in cases.spellings(cases.full_document(kind))),
)
if atheris := sys.modules.get("atheris"):  # what is generated is no module, so it is instrumented by hand
    for each in cases.TYPES:
        atheris.instrument_func(cases.fast_path("drx", "sandbox").encoders[each])


def check(content: bytes) -> None:
    choices = Choices(content)
    text = choices.one(TEXTS)
    head = cases.a_head(text, choices)
    if choices.below(8) == 1:
        body = choices.rest()
    else:
        for _ in range(EDITS_MAX):
            if choices.is_used_up:
                break
            text = cases.a_text(cases.edited(text, choices))
        body = text.body
    cases.check_fast_path(body, head)
