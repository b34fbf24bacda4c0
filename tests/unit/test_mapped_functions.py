"""The functions of mapping files, and a time limit for every expression."""

from contextlib import suppress
from datetime import tzinfo
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from bridge.mapping.json_body import Real
from bridge.mapping.mapped_functions import (
    BUDGET,
    CALL_STEPS,
    ZONE_STEPS,
    ExhaustedError,
    ExpressionError,
    Scope,
    UnfitError,
    compile_expression,
)

UNFIT = object()


def search(text: str, value: Any, zone: tzinfo | None = None) -> Any:
    scope = Scope(value, zone, prefix="p:")
    try:
        return scope.evaluate(compile_expression(text), value)
    except UnfitError:
        return UNFIT


@pytest.mark.parametrize(
    ("text", "value", "wanted"),
    [
        ('words(@, `{"A":"b"}`)', " a ", "b"), ('words(@, `{"A":"b"}`)', "C", "C"), ('words(@, `{"1":"b"}`)', 1, "b"),
        ('words(@, `{"1.5":"b"}`)', Real("1.5"), "b"), ('words(@, `{"Not Here":"b","not_here":"c"}`)', "NOT_HERE", "b"),
        ('words(@, `{"Not Here":"b","not_here":"c"}`)', "not_here", "c"), ("words(@, `{}`)", "x" * 2000, "x" * 2000),
        ('words(@, `{"A":"b"}`)', True, UNFIT), ('words(@, `{"A":"b"}`)', {}, UNFIT),
        ("day(@)", "9/8/2026", "2026-09-08"), ("day(@)", "2026-09-08T23:00:00Z", "2026-09-08"),
        ("day(@, '%d.%m.%Y')", "08.09.2026", "2026-09-08"), ("day(@, '%d.%m.%Y')", "9/8/2026", UNFIT),
        ("day(@)", "soon", UNFIT), ("day(@)", "99/99/2026", UNFIT),
        ("instant(@)", "2026-09-08T23:00:00-04:00", "2026-09-09T03:00:00+00:00"),
        ("instant(@)", "2026-09-08T23:00:00", "2026-09-09T04:00:00+00:00"),
        ("instant(@, 'UTC')", "9/8/2026", "2026-09-08T00:00:00+00:00"), ("instant(@, zone)", "9/8/2026", UNFIT),
        ("instant(@)", 7, UNFIT),
        ("segment(@, '/', `-1`)", "https://ehr/fhir/Patient/p-1", "p-1"),
        ("segment(@, '/', `0`)", "Patient/p-1", "Patient"), ("segment(@, '/', `2`)", "Patient/p-1", None),
        ("segment(@, '/', `-3`)", "Patient/p-1", None), ("segment(absent, '/', `0`)", {}, None),
        ("segment(@, '', `0`)", "a", UNFIT), ("segment(@, '/', '0')", "a", UNFIT),
        ("segment(@, '/', `0`)", "a/" * 600, UNFIT),
        ("seconds(@)", 1789398566, "2026-09-14T15:09:26+00:00"),
        ("seconds(@)", "1789398566", "2026-09-14T15:09:26+00:00"),
        ("seconds(@)", Real("1789398566.5"), "2026-09-14T15:09:26.500000+00:00"), ("seconds(@)", "", None),
        ("root.root.x", {"root": {"root": {"x": 1}}}, 1),
        ("seconds(@)", 1789398566000, UNFIT), ("seconds(@)", -1789398566000, UNFIT), ("seconds(@)", "1e400", UNFIT),
        ("seconds(@)", "1789398566 s", UNFIT), ("seconds(@)", True, UNFIT),
        ("lower(@)", "A" * 1000, "a" * 1000), ("lower(@)", 7, "7"),
        ("trim(@)", " a ", "a"),
        ("text(@)", Real("1.50e1"), "1.50e1"), ("text(@)", -7, "-7"), ("text(@)", False, UNFIT),
        ("to_string(@)", Real("0.0"), "0.0"), ("to_string(@)", {}, UNFIT),
        ('lookup(@, `{"A":"b"}`)', "a", "b"), ('lookup(@, `{"A":"b"}`)', "C", None),
        ('lookup(@, `{"A":"b"}`)', {}, None),
        ("id(@)", 7, "7"), ("id(@)", Real("7.0"), UNFIT),
        ("digits(@)", "007", "007"), ("digits(@)", "1_000", None), ("digits(@)", "\uff11", None),
        ("prefixed('a', @)", 7, "p:a7"), ("prefixed('a', @)", " ", None), ("prefixed(@)", {}, UNFIT),
        ("without(@, 'org:')", "org:x", "x"), ("without(@, 'org:')", 7, UNFIT),
        ("given(@, `null`)", "0001-01-01", False), ("given(`{}`, @)", Real("0.5"), True),
        ("first_text([`1`, @])", "a", "a"),
        ("to_number(@)", "-1.5e3", -1500.0), ("to_number(@)", "12", 12), ("to_number(@)", "1_000", None),
        ("to_number(@)", " 12", None), ("to_number(@)", "nan", None), ("to_number(@)", "0x1F", None),
        ("to_number(@)", "\uff11", None), ("to_number(@)", True, None),
        ("type(@)", Real("0.5"), "number"), ("type(@)", True, "boolean"),
        ("truth(@)", "Yes", True), ("truth(@)", 0, False), ("truth(@)", " ", None), ("truth(@)", "maybe", UNFIT),
        ("first(@)", [None, " ", "", "a", "b"], "a"), ("first(@)", [], None), ("first(@)", "a", UNFIT),
        ("not_null(a, b)", {"b": ""}, ""),
        ("contains(@, `1`)", [True, 1], True), ("contains(@, `true`)", [1], False), ("contains(@, 'b')", "abc", True),
        ("contains(@, `1`)", "abc", False),
        ("join('-', @)", ["a", "b"], "a-b"), ("join('-', @)", ["a", 1], UNFIT), ("join('', [@, @])", "x" * 501, UNFIT),
        ("a == b", {"a": [1], "b": [1]}, UNFIT), ("a == `[]`", {"a": [1]}, False), ("a == `[]`", {"a": []}, True),
        ("`1` == `true`", {}, False),
        ("text(@) == '1.0'", Real("1.0"), True),
        ("@ > `1`", 2, True), ("@ > `1`", Real("2.5"), None),
        ("sum(@)", [1, Real("2.5")], UNFIT),
        ("@[::0]", [1], UNFIT),
        ("abs(@)", "x", UNFIT),
        ("a.b.c", {"a": {"b": 7}}, None),
    ],
)  # fmt: skip
def test_a_function_reads_or_is_unfit(text: str, value: Any, wanted: Any) -> None:
    assert search(text, value, ZoneInfo("America/Chicago")) == wanted


def test_what_was_passed_over_counts_as_not_read() -> None:
    body = {"a": " ", "b": "x", "c": "y"}
    scope = Scope(body, None)

    scope.evaluate(compile_expression("first([a, b, c])"), body)

    assert {name for _, name in scope.read} == {"b"}


def test_the_path_is_that_of_the_member_that_is_read_first() -> None:
    texts = ("rx.id", "words(a.b, `{}`)", "lines[0].no", "x || y", "`1`", "'a'", "first([p.q, r])")

    assert [compile_expression(text).path for text in texts] == ["/rx/id", "/a/b", "/lines/*/no", "/x", "", "", "/p/q"]


def test_a_day_that_says_more_than_the_day_counts_as_not_read() -> None:
    for text, read in (("9/18/2026", True), ("9/18/2026 5:00 PM", False)):
        scope = Scope({"at": text}, None)
        assert scope.evaluate(compile_expression("day(at)"), scope.root) == "2026-09-18"
        assert bool(scope.read) == read


DOUBLED = [[0] * 50] * 2000
HOSTILE = [
    ("|".join(["[@,@][]"] * 62), [1]),
    ("|".join(["[@,@]"] * 40) + "==" + "|".join(["[@,@]"] * 40), [1]),
    ("contains([@]|" + "|".join(["[@,@]"] * 35) + ",@|" + "|".join(["[@,@]"] * 35) + ")", [1]),
    ("|".join(["join('',[@,@])"] * 33), "x" * 1000),
    ("|".join(["prefixed(@,@)"] * 35), "x" * 1000),
    ("|".join(["[*][]"] * 80), DOUBLED),
    ("[*].[*].[*].[*].[*].[*].[*]", DOUBLED),
    ("[?[?[?@]]]", DOUBLED),
    ("[?contains(@, `1`)]", DOUBLED),
    ("[?length(@) == `1`]", DOUBLED),
    ("first(@)", [[None]] * 60_000),
    ("*.*.*.*", {str(number): {str(inner): {} for inner in range(300)} for number in range(200)}),
    ("[::-1]|[::-1]|[::-1]|[::-1]|[::-1]", [0] * 60_000),
    ("reverse(reverse(reverse(reverse(@))))", [0] * 60_000),
    ("day(@, '%d.%m.%Y')", "1" * 200_000),
    ("instant(@)", "1" * 200_000),
    ("to_number(@)", "9" * 200_000),
    ("|".join(["a"] * 200), {"a": 1}),
]


@pytest.mark.parametrize(("text", "value"), HOSTILE, ids=[text[:30] for text, _ in HOSTILE])
def test_a_hostile_body_ends_an_expression_within_its_budget(text: str, value: Any) -> None:
    """Counted in steps, not in time; without a budget some of these never end."""
    assert len(text) <= 500
    expression, scope = compile_expression(text), Scope(value, None)

    with suppress(UnfitError, ExhaustedError):
        scope.evaluate(expression, value)

    assert scope.left < BUDGET


@pytest.mark.parametrize("text", ["map(&a, @)", "sort_by(@, &a)", "max_by(@, &a)", "&a", "merge(@, @)"])
def test_what_could_write_more_than_it_reads_is_left_out(text: str) -> None:
    with pytest.raises(ExpressionError, match=r"unknown function|no &expressions"):
        compile_expression(text)


@pytest.mark.parametrize("text", ["lower(@)", "truth(@)", "day(@)", "instant(@)", "instant('2026-09-08', @)"])
def test_a_text_that_is_read_character_by_character_has_a_bound(text: str) -> None:
    """To change the case of one of 200 KB takes 10 ms, and each element of a list may ask for that."""
    assert search(text, "\u00df" * 1001) is UNFIT


def test_zones_that_a_body_makes_up_are_paid_for() -> None:
    value = [{"at": "2026-09-14T15:09:26", "zone": f"Mars/{number}"} for number in range(100)]
    scope = Scope(value, None)

    for element in value:
        with suppress(UnfitError):
            scope.evaluate(compile_expression("instant(at, zone)"), element)

    assert scope.left <= BUDGET - len(value) * ZONE_STEPS
    scope.left = CALL_STEPS  # a step too few for a call and its argument
    with pytest.raises(ExhaustedError):
        scope.evaluate(compile_expression("given(at)"), value[0])
