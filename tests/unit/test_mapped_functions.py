"""What the functions of mapping files read, and that no expression takes long whatever it is given."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridge.ingress.json_body import Real, parse
from bridge.ingress.profiles.mapped_functions import (
    BUDGET,
    TEXT_STEP,
    ZONE_STEPS,
    ExhaustedError,
    Scope,
    UnfitError,
    compile_expression,
)

UNFIT = object()


def search(text: str, value: Any, zone: tzinfo | None = None) -> Any:
    scope = Scope(value, zone)
    try:
        return scope.evaluate(compile_expression(text), value)
    except UnfitError:
        return UNFIT


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ('words(@, `{"A":"b"}`)', "A", "b"),
        ('words(@, `{"A":"b"}`)', " a ", "b"),
        ('words(@, `{"A":"b"}`)', "C", "C"),
        ('words(@, `{"1":"b"}`)', 1, "b"),
        ('words(@, `{"1.5":"b"}`)', Real("1.5"), "b"),
        ('words(@, `{"A":"b"}`)', True, UNFIT),
        ('words(@, `{"A":"b"}`)', {}, UNFIT),
        ("day(@)", "9/8/2026", "2026-09-08"),
        ("day(@)", "2026-09-08T23:00:00Z", "2026-09-08"),
        ("day(@, '%d.%m.%Y')", "08.09.2026", "2026-09-08"),
        ("day(@, '%d.%m.%Y')", "9/8/2026", UNFIT),
        ("day(@)", "soon", UNFIT),
        ("day(@)", "99/99/2026", UNFIT),
        ("instant(@)", "2026-09-08T23:00:00-04:00", "2026-09-09T03:00:00+00:00"),
        ("instant(@)", "2026-09-08T23:00:00", "2026-09-09T04:00:00+00:00"),
        ("instant(@, 'UTC')", "9/8/2026", "2026-09-08T00:00:00+00:00"),
        ("instant(@, zone)", "9/8/2026", UNFIT),
        ("instant(@)", 7, UNFIT),
        ("lower(@)", "ABC", "abc"),
        ("lower(@)", 7, "7"),
        ("trim(@)", " a ", "a"),
        ("text(@)", Real("1.50e1"), "1.50e1"),
        ("text(@)", -7, "-7"),
        ("text(@)", False, UNFIT),
        ("to_string(@)", Real("0.0"), "0.0"),
        ("to_string(@)", {}, UNFIT),
        ("truth(@)", "Yes", True),
        ("truth(@)", 0, False),
        ("truth(@)", " ", None),
        ("truth(@)", "maybe", UNFIT),
        ("first(@)", [None, " ", "", "a", "b"], "a"),
        ("first(@)", [], None),
        ("first(@)", "a", UNFIT),
        ("not_null(a, b)", {"b": ""}, ""),
        ("contains(@, `1`)", [True, 1], True),
        ("contains(@, `true`)", [1], False),
        ("contains(@, 'b')", "abc", True),
        ("contains(@, `1`)", "abc", False),
        ("join('-', @)", ["a", "b"], "a-b"),
        ("join('-', @)", ["a", 1], UNFIT),
        ('merge(@, `{"a": 2}`)', {"a": 1, "b": 3}, {"a": 2, "b": 3}),
        ("a == b", {"a": [{"c": 1}], "b": [{"c": 1}]}, True),
        ("a == b", {"a": [{"c": 1}], "b": [{"c": True}]}, False),
        ("a != b", {"a": [1], "b": [1, 2]}, True),
        ("text(@) == '1.0'", Real("1.0"), True),
        ("@ > `1`", 2, True),
        ("@ > `1`", Real("2.5"), None),
        ("sum(@)", [1, Real("2.5")], UNFIT),
        ("@[::0]", [1], UNFIT),
        ("abs(@)", "x", UNFIT),
        ("sort_by(@, &a)", [{"a": 2}, {"a": 1}], [{"a": 1}, {"a": 2}]),
        ("a.b.c", {"a": {"b": 7}}, None),
    ],
)
def test_a_function_reads_or_is_unfit(text: str, value: Any, wanted: Any) -> None:
    assert search(text, value, ZoneInfo("America/Chicago")) == wanted


@pytest.mark.parametrize("function", ["words(@, `{}`)", "day(@)", "instant(@)", "lower(@)", "trim(@)", "text(@)"])
def test_a_null_says_nothing(function: str) -> None:
    assert search(function, None) is None


def test_what_was_passed_over_counts_as_not_read() -> None:
    body = {"a": " ", "b": "x", "c": "y"}
    scope = Scope(body, None)

    scope.evaluate(compile_expression("first([a, b, c])"), body)

    assert {name for _, name in scope.read} == {"b"}


def test_the_path_is_that_of_the_member_that_is_read_first() -> None:
    texts = ("rx.id", "words(a.b, `{}`)", "lines[0].no", "x || y", "`1`", "'a'", "first([p.q, r])")

    assert [compile_expression(text).path for text in texts] == ["/rx/id", "/a/b", "/lines/*/no", "/x", "", "", "/p/q"]


DOUBLED = [[0] * 50] * 2000
HOSTILE = [
    ("|".join(["[@,@][]"] * 62), [1]),
    ("|".join(["[@,@]"] * 40) + "==" + "|".join(["[@,@]"] * 40), [1]),
    ("contains([@]|" + "|".join(["[@,@]"] * 35) + ",@|" + "|".join(["[@,@]"] * 35) + ")", [1]),
    ("|".join(["join('',[@,@])"] * 33), "x" * 1000),
    ("|".join(["[*][]"] * 80), DOUBLED),
    ("[*].[*].[*].[*].[*].[*].[*]", DOUBLED),
    ("[?[?[?@]]]", DOUBLED),
    ("map(&map(&[@,@], @), @)", DOUBLED),
    ("sort_by(@, &length(@))", DOUBLED),
    ("first(@)", [[None]] * 60_000),
    ("*.*.*.*", {str(number): {str(inner): {} for inner in range(300)} for number in range(200)}),
    ("[::-1]|[::-1]|[::-1]|[::-1]|[::-1]", [0] * 60_000),
    ("reverse(reverse(reverse(reverse(@))))", [0] * 60_000),
    ("|".join(["merge(@,@,@,@,@,@)"] * 25), {str(number): 0 for number in range(20_000)}),
    ("day(@, '%d.%m.%Y')", "1" * 200_000),
    ("instant(@)", "1" * 200_000),
    ("to_number(@)", "9" * 200_000),
    ("words(@, `{}`)", "A" * 200_000),
    ("|".join(["a"] * 200), {"a": 1}),
]


@pytest.mark.parametrize(("text", "value"), HOSTILE, ids=[text[:30] for text, _ in HOSTILE])
def test_a_hostile_expression_ends_within_its_budget(text: str, value: Any) -> None:
    """Counted in steps, not in time; without a budget some of these never end."""
    assert len(text) <= 500
    expression, scope = compile_expression(text), Scope(value, None)

    with suppress(UnfitError, ExhaustedError):
        scope.evaluate(expression, value)

    assert scope.left < BUDGET


LONG = 16_000
READING = (
    *("lower(@)", "trim(@)", "truth(@)", "words(@, `{}`)", "day(@)", "day(@, '%d')", "instant(@)", "instant(@, 'UTC')"),
    *("reverse(@)", "to_number(@)", "contains(@, 'b')", "contains('b', @)", "starts_with(@, @)", "ends_with(@, @)"),
    *("join(@, ['a', 'b'])", "join('', [@, @])", "max([@, @])", "min([@, @])", "sort([@, @])", "@ > @", "@ == @"),
    *("sort_by([[@]], &[0])", "max_by([[@]], &[0])", "min_by([[@]], &[0])", "contains([@], @)", "length(@)", "text(@)"),
    *("first([@])", "to_string(@)"),
)


@pytest.mark.parametrize("text", READING)
def test_a_text_is_paid_for_by_its_length(text: str) -> None:
    """Twenty long texts of one body took a hundred times the budget's 25 ms."""

    def spent(value: str) -> int:
        scope = Scope(value, None)
        with suppress(UnfitError):
            scope.evaluate(compile_expression(text), value)
        return BUDGET - scope.left

    assert spent("A" * LONG) >= spent("A") + LONG // TEXT_STEP


def test_names_of_a_table_in_the_body_and_of_objects_that_are_compared_are_paid_for() -> None:
    value = {"table": {"A" * LONG: "b"}}
    for text in ("words('a', table)", "table == table"):
        scope = Scope(value, None)
        scope.evaluate(compile_expression(text), value)

        assert scope.left <= BUDGET - LONG // TEXT_STEP


def test_a_number_is_paid_for_by_its_digits() -> None:
    value = Real("1." + "0" * LONG)
    scope = Scope(value, None)

    assert scope.evaluate(compile_expression("words(@, `{}`)"), value) == value.lexeme
    assert scope.left <= BUDGET - LONG // TEXT_STEP


def test_zones_that_a_body_makes_up_are_paid_for() -> None:
    value = [{"at": "2026-09-14T15:09:26", "zone": f"Mars/{number}"} for number in range(100)]
    scope = Scope(value, None)

    for element in value:
        with suppress(UnfitError):
            scope.evaluate(compile_expression("instant(at, zone)"), element)

    assert scope.left <= BUDGET - len(value) * ZONE_STEPS


def test_a_format_of_days_that_a_body_makes_up_has_a_bound() -> None:
    value = {"at": "x" * 41, "format": "x" * 41}

    assert search("day(at, format)", value) is UNFIT


def test_a_deep_body_is_searched() -> None:
    body: Any = {"id": "x"}
    for _ in range(24):
        body = {"a": body}
    document = parse(json.dumps(body).encode())

    assert search(".".join(["a"] * 24 + ["id"]), document) == "x"
    assert search(".".join(["*"] * 25), document) is not UNFIT
