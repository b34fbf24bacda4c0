"""Whatever a body is, a mapping gives events or a reason, and loses nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.event import ParkReason
from bridge.ingress.json_body import to_json_text
from bridge.ingress.profiles.mapped import compile_mapping
from bridge.ingress.profiles.mapped_functions import ExhaustedError, Scope, UnfitError, compile_expression
from tests.profile_properties import assert_closed, assert_writable
from tests.unit.mapping_files import ACCOUNT, ACME, BODY
from tests.unit.profile_documents import leaves
from tests.unit.vendor_documents import push

SCALARS = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=12)
WORDS = st.sampled_from(["STATE", "DONE", "IN_WORK", "", " ", "7", "9/8/2026", "2026-09-14T15:09:26Z", "a b"])
NAMES = st.sampled_from(["kind", "rx", "id", "state", "patient", "ssn", "lines", "a/b~c", "price"]) | st.text(
    max_size=5
)
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=20,
)
BODIES = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.just("STATE") | VALUES,
        "rx": st.fixed_dictionaries({"id": st.just("7") | VALUES}) | VALUES,
        "state": WORDS | VALUES,
        "price": VALUES,
        "born": VALUES,
        "lines": st.lists(VALUES, max_size=4) | VALUES,
        "patient": VALUES,
    },
)
RICH = compile_mapping(
    (
        ACME.replace("claims = [", 'names = "any_case"\nclaims = ["/price", "/born", "/patient/a", ')
        + 'patient_pay = "price"\nlot_number = "first([price, born])"\nactive = "truth(born)"\n'
        + 'raw_status = "text(price) || trim(state)"\n'
        + '[[event]]\neach = "lines"\nwhen = "@"\ntype = "cancel.responded"\n'
        + 'key = "root.rx.id"\nid = "id"\ntime = "at"\n'
        + '[event.data]\nrequest_id = "first([id, root.rx.id])"\ndecision = \'`"approved"`\'\nnote = "state"\n'
    ).encode(),
    "rich.toml",
    ACCOUNT,
)
PLAIN = compile_mapping(ACME.encode(), "acme.toml", ACCOUNT)

FUNCTIONS = (
    *('words({0}, `{{"DONE":"x"}}`)', "day({0})", "day({0}, '%d.%m.%Y')", "instant({0})", "lower({0})", "trim({0})"),
    *("text({0})", "truth({0})", "first({0})", "to_string({0})", "to_number({0})", "contains({0}, {0})", "length({0})"),
    *(
        "join('', {0})",
        "sort({0})",
        "max({0})",
        "sum({0})",
        "prefixed({0}, {0})",
        "keys({0})",
        "reverse({0})",
        "abs({0})",
    ),
)
OPERANDS = (
    "@",
    "rx",
    "rx.id",
    "state",
    "lines",
    "lines[*]",
    "lines[]",
    "*",
    "*.*",
    "@ | [0]",
    "[rx, state]",
    "{a: state}",
)
JOINED = (
    "{0}",
    "{0} == {1}",
    "{0} || {1}",
    "{0} && {1}",
    "!{0}",
    "{0} | {1}",
    "[?{0}]",
    "{0} > {1}",
    "lines[?{0}]",
)


@given(body=BODIES)
@settings(max_examples=300)
def test_a_body_is_events_or_a_reason(body: dict[str, Any]) -> None:
    for mapping in (PLAIN, RICH):
        outcome = push(mapping, to_json_text(body).encode())

        assert_closed(outcome)
        if not isinstance(outcome, ParkReason):
            for event in outcome.events:
                assert_writable(event)


@pytest.mark.volume
@given(body=BODIES)
@settings(max_examples=1000)
def test_every_member_is_in_the_event_or_kept_or_dropped(body: dict[str, Any]) -> None:
    body = {**BODY, **body, "kind": "STATE", "rx": BODY["rx"]}
    outcome = push(PLAIN, to_json_text(body).encode())
    if isinstance(outcome, ParkReason):
        return
    told = repr([event.value for event in outcome.events])

    for pointer, leaf in leaves(body):
        if leaf is None or re.match(r"/patient/ssn\b", pointer) or leaf in ({}, []):
            continue
        is_word = pointer == "/state" and str(leaf).strip().casefold() in {"done", "in_work"}
        assert is_word or is_in(told, leaf), pointer


def is_in(told: str, leaf: object) -> bool:
    text = leaf if isinstance(leaf, str) else to_json_text(leaf)
    return repr(text)[1:-1] in told or repr(to_json_text(leaf)).replace("\\\\", "\\")[1:-1] in told.replace(
        "\\\\", "\\"
    )


@pytest.mark.volume
@given(
    body=BODIES,
    joined=st.sampled_from(JOINED),
    functions=st.tuples(*[st.sampled_from((*FUNCTIONS, "{0}"))] * 2),
    operands=st.tuples(*[st.sampled_from(OPERANDS)] * 2),
)
@settings(max_examples=800)
def test_an_expression_gives_a_value_or_is_unfit(
    body: dict[str, Any], joined: str, functions: tuple[str, str], operands: tuple[str, str]
) -> None:
    parts = [function.format(operand) for function, operand in zip(functions, operands, strict=True)]
    expression = compile_expression(joined.format(*parts))
    scope = Scope(body, None)

    try:
        scope.evaluate(expression, body)
        ended = True
    except (UnfitError, ExhaustedError):
        ended = True

    assert ended
