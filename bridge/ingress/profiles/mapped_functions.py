"""The expressions of mapping files: JMESPath with functions for what vendors write, held to a budget.

JMESPath has no loops, but it can double a list or a text with each step of a pipe, and compare trees that share their
branches. So every step, element and comparison is paid from a budget that one delivery has, and an expression that
exhausts it ends there. Numbers that are no integers stay `Real`, as they were written: `text(x)` gives their digits.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions, signature
from jmespath.visitor import TreeInterpreter

from bridge.ingress.json_body import Real
from bridge.ingress.profiles.plan import text_of_id
from bridge.ingress.profiles.profile import Flag
from bridge.ingress.profiles.words import day_of, folded, instant_of, is_given, truth_of

LENGTH_MAX = 500  # characters; what is longer is a program
# Steps of all expressions of one delivery. A step takes from 0.1 to 0.5 microseconds, so this is 25 ms at most; forty
# expressions take some 200 steps. A function reads the text that it is given in steps as well, so a field of a megabyte
# may be passed on as it is, but not searched a hundred times.
BUDGET = 50_000
# Characters that one step may copy, search or compare.
TEXT_STEP = 64
# Characters of which one step may change the case or look for space: up to 48 nanoseconds each outside of ASCII.
FOLD_STEP = 8
# A format of days is compiled to a regular expression, and no vendor's is longer.
FORMAT_MAX = 40
# What looking for a zone that does not exist costs: it is searched for on the disk, in 30 microseconds.
ZONE_STEPS = 100

Node = dict[str, Any]


class ExpressionError(ValueError):
    """An expression that cannot be used; the message says why, in words of the file's author."""


class ExhaustedError(Exception):
    """A delivery's budget is used up."""


class UnfitError(ValueError):
    """A function was given what it cannot read."""


class Scope:
    """One delivery's evaluation: its budget, and what the expression at work has read.

    Attributes:
        left: Steps that are left.
        read: Members that were read: identity of the object and name -> value.
        flags: Leniencies used.
        zone: Of times without one.
        root: The whole body, which an expression on one element of a list can name.
        element: That element, or the body itself.
    """

    __slots__ = ("_interpreter", "element", "flags", "left", "read", "root", "zone")

    def __init__(self, root: object, zone: tzinfo | None) -> None:
        self._interpreter = _Interpreter(self)
        self.left = BUDGET
        self.read: dict[tuple[int, str], object] = {}
        self.flags: set[Flag] = set()
        self.zone = zone
        self.root = self.element = root

    def evaluate(self, expression: Expression, value: object) -> object:
        """Search `value`; `read` then has what was read.

        Raises:
            ExhaustedError: The budget is used up.
            UnfitError: A function was given what it cannot read.
        """
        self.read = {}
        if expression.steps:
            return self._follow(expression.steps, value)
        try:
            return self._interpreter.visit(expression.node, value)
        except ExhaustedError:
            raise
        except Exception:  # noqa: BLE001 - the library raises whatever Python does for operands that it did not expect
            raise UnfitError from None

    def _follow(self, steps: tuple[str, ...], value: Any) -> object:
        """Search a chain of members, as the interpreter would in three times the time; most expressions are one."""
        self.spend(len(steps))
        for name in steps:
            if name == "root" and value is self.element and value is not self.root:
                value = self.root
                continue
            if type(value) is not dict:
                return None
            found = value.get(name)
            self.read[id(value), name] = found
            value = found
        if type(value) is list:
            self.spend(len(value))
        return value

    def spend(self, steps: int) -> None:
        """Pay for some steps.

        Raises:
            ExhaustedError: There are not as many left.
        """
        self.left -= steps
        if self.left < 0:
            raise ExhaustedError

    def forget(self, values: Iterable[object], chosen: object) -> None:
        """Take back that these values were read: another one was chosen."""
        passed = {id(value) for value in values} - {id(chosen)}
        self.spend(len(self.read) + len(passed))
        for place in [place for place, value in self.read.items() if id(value) in passed]:
            del self.read[place]


class Expression(NamedTuple):
    """A compiled expression.

    Attributes:
        node: Root of its tree.
        path: The member it reads first, array indexes as `*`; empty if it reads none.
        names: Names of all members that it may read.
        steps: The members, if it is a chain of them and nothing else.
    """

    node: Node
    path: str
    names: frozenset[str]
    steps: tuple[str, ...] = ()

    @property
    def constant(self) -> object:
        """The value of a literal; None if it is no literal."""
        return _exact(self.node["value"]) if self.node["type"] == "literal" else None


def compile_expression(
    text: str, *, any_case: bool = False, tables: Mapping[str, Mapping[str, str]] = MappingProxyType({})
) -> Expression:
    """Compile an expression and check all that can be checked before there is a body.

    Args:
        text: JMESPath.
        any_case: Names of members are compared without their case.
        tables: Of words, by the name with which function `words` calls them.

    Raises:
        ExpressionError: It is too long, no JMESPath, or calls a function that is unknown or takes other arguments.
    """
    if len(text) > LENGTH_MAX:
        msg = f"longer than {LENGTH_MAX} characters"
        raise ExpressionError(msg)
    try:
        # A copy, since the library gives the same tree for the same text, and tables of words are put into it.
        tree: Node = copy.deepcopy(jmespath.compile(text).parsed)
        nodes = list(_nodes(tree))
    except JMESPathError as exc:
        position = getattr(exc, "lex_position", None)
        msg = "no JMESPath" if position is None else f"no JMESPath from character {position + 1}"
        raise ExpressionError(msg) from None
    except (RecursionError, ValueError):
        msg = "no JMESPath: nested too deeply, or a literal that is no JSON"
        raise ExpressionError(msg) from None
    for node in nodes:
        if node["type"] == "function_expression":
            _check_call(node, tables)
        elif node["type"] in ("literal", "field"):
            _check_value(node["value"])
    if any_case:
        tree = _casefolded(tree)
        nodes = list(_nodes(tree))
    names = frozenset(node["value"] for node in nodes if node["type"] == "field")
    return Expression(tree, next(filter(None, map(_path, nodes)), ""), names, _chain(tree))


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node["children"]:
        if isinstance(child, dict):  # a slice has numbers
            yield from _nodes(child)


def _casefolded(node: Node) -> Node:
    children = [_casefolded(child) if isinstance(child, dict) else child for child in node["children"]]
    value = node["value"].casefold() if node["type"] == "field" else node.get("value")
    return {**node, "children": children} | ({} if value is None else {"value": value})


def _chain(node: Node) -> tuple[str, ...]:
    """Return the members of a chain of them; nothing for any other expression."""
    chain = node["children"] if node["type"] == "subexpression" else [node]
    return tuple(each["value"] for each in chain) if all(each["type"] == "field" for each in chain) else ()


def targets(node: Node) -> Iterator[object]:
    """Yield the values that the file itself says an expression may give: literals, and the right side of tables."""
    children = node["children"]
    match node["type"], node.get("value"):
        case "literal", value:
            yield value
        case "or_expression", _:
            yield from (value for child in children for value in targets(child))
        case (("pipe" | "and_expression"), _):
            yield from targets(children[-1])
        case "function_expression", "not_null":
            yield from (value for child in children for value in targets(child))
        case "function_expression", "words" if children[1]["type"] == "literal":
            yield from children[1]["value"].values()


def _path(node: Node) -> str:
    """Write a chain of members and indexes as a path; empty if the node is none."""
    match node["type"]:
        case "field":
            return f"/{node['value']}"
        case "index":
            return "/*"
        case "subexpression" | "index_expression":
            steps = [_path(child) for child in node["children"]]
            return "".join(steps) if all(steps) else ""
        case _:
            return ""


def _check_call(node: Node, tables: Mapping[str, Mapping[str, str]]) -> None:
    name, given = node["value"], node["children"]
    spec = OwnFunctions.FUNCTION_TABLE.get(name)
    if spec is None:
        msg = f"unknown function {name!r}"
        raise ExpressionError(msg)
    wanted = spec["signature"]
    fits = len(given) >= len(wanted) if wanted and wanted[-1].get("variadic") else len(given) == len(wanted)
    if not fits or len(given) > spec["function"].__dict__.get("most", len(given)):
        msg = f"function {name!r} takes other arguments"
        raise ExpressionError(msg)
    if name == "instant" and len(given) > 1 and given[1]["type"] == "literal":
        _check_zone(given[1]["value"])
    if name == "day" and len(given) > 1 and given[1]["type"] == "literal":
        _check_format(given[1]["value"])
    if name == "words" and given[1]["type"] == "literal" and not isinstance(given[1]["value"], dict):
        named = given[1]["value"]
        if not isinstance(named, str) or named not in tables:
            msg = "the table of function 'words' is no JSON object and no name of one in [tables]"
            raise ExpressionError(msg)
        given[1] = {**given[1], "value": dict(tables[named])}


def _check_value(value: object) -> None:
    """Refuse half of a surrogate pair, which JSON can escape and no record can hold, and numbers that are none."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        msg = "a text with half of a surrogate pair"
        raise ExpressionError(msg) from None
    except ValueError:
        msg = "a number that is not finite"
        raise ExpressionError(msg) from None


def _check_zone(name: object) -> None:
    try:
        ZoneInfo(str(name))
    except (LookupError, ValueError, OSError):
        msg = f"no time zone is named {str(name)[:40]!r}"
        raise ExpressionError(msg) from None


def _check_format(text: object) -> None:
    try:
        datetime.strptime(datetime(2001, 2, 3, tzinfo=UTC).strftime(str(text)), str(text))  # noqa: DTZ007 - tried only
    except (ValueError, re.error):  # the latter for a directive that stands twice
        msg = f"{str(text)[:40]!r} is no format of a day, such as %d.%m.%Y"
        raise ExpressionError(msg) from None


def _exact(value: object) -> object:
    """Turn the floats of a literal into what a body would have."""
    if isinstance(value, float):
        return Real(repr(value))
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    return [_exact(inner) for inner in value] if isinstance(value, list) else value


class OwnFunctions(Functions):  # type: ignore[misc] # the library has no types
    """The functions that a mapping may call; those of JMESPath that could write more than they read pay for it."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    def call_function(self, function_name: str, resolved_args: list[object]) -> object:
        """Call a function, which pays for the text that it is given."""
        step = FOLD_STEP if function_name in _FOLDING else TEXT_STEP
        self._scope.spend(sum(_length(argument) // step for argument in resolved_args))
        return super().call_function(function_name, resolved_args)

    def _create_key_func(
        self, expref: object, allowed_types: list[str], function_name: str
    ) -> Callable[[object], object]:
        """Give what sort_by, min_by and max_by compare elements by: their keys are texts that are read as well."""
        key_of = super()._create_key_func(expref, allowed_types, function_name)

        def paid(element: object) -> object:
            key: object = key_of(element)
            self._scope.spend(_length(key) // TEXT_STEP)
            return key

        return paid

    @signature({"types": []}, {"types": ["object"]})  # type: ignore[untyped-decorator] # as above
    def _func_words(self, word: object, table: Mapping[str, object]) -> object:
        """Look a word up, as it is or without case and space around it; one that is not there stays as it is."""
        if word is None:
            return None
        text = _lexeme(word)
        if text in table:
            return table[text]
        plain = folded(text)
        self._scope.spend(len(table))
        self._scope.spend(_length(list(table)) // FOLD_STEP)
        return next((value for name, value in table.items() if folded(name) == plain), text)

    @signature({"types": [], "variadic": True})  # type: ignore[untyped-decorator] # as above
    def _func_day(self, *arguments: object) -> str | None:
        """Read a day: ISO or American, or in a format of `strptime`."""
        text, *formats = arguments
        if not is_given(text):
            return None
        if formats:
            if len(_text(formats[0])) > FORMAT_MAX:
                raise UnfitError
            return datetime.strptime(_text(text), _text(formats[0])).date().isoformat()  # noqa: DTZ007 - a day has none
        return day_of(_text(text)).isoformat()

    @signature({"types": [], "variadic": True})  # type: ignore[untyped-decorator] # as above
    def _func_instant(self, *arguments: object) -> str | None:
        """Read an instant, or a local time or day of the zone that is given, else of the file's."""
        text, *zones = arguments
        if not is_given(text):
            return None
        zone = self._zone(_text(zones[0])) if zones else self._scope.zone
        return instant_of(_text(text), zone, self._scope.flags).isoformat()

    def _zone(self, name: str) -> ZoneInfo:
        try:
            return _zone_of(name)
        except Exception:
            self._scope.spend(ZONE_STEPS)
            raise

    @signature({"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_lower(self, text: object) -> str | None:
        return None if text is None else _text(text).lower()

    @signature({"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_trim(self, text: object) -> str | None:
        return None if text is None else _text(text).strip()

    @signature({"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_text(self, number: object) -> str | None:
        """Give a number as it was written."""
        return None if number is None else _lexeme(number)

    @signature({"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_truth(self, value: object) -> bool | None:
        if not is_given(value):
            return None
        truth = truth_of(value)
        if truth is None:
            raise UnfitError
        return truth

    @signature({"types": ["array", "null"]})  # type: ignore[untyped-decorator] # as above
    def _func_first(self, items: list[object] | None) -> object:
        """Give the first element that says something."""
        return self._choose(items or [], is_given)

    @signature({"types": [], "variadic": True})  # type: ignore[untyped-decorator] # as above
    def _func_not_null(self, *arguments: object) -> object:
        return self._choose(arguments, lambda argument: argument is not None)

    def _choose(self, items: Iterable[object], wanted: Callable[[object], bool]) -> object:
        items = list(items)
        chosen = next((index for index, item in enumerate(items) if wanted(item)), None)
        if chosen is None:
            return None
        self._scope.forget(items, items[chosen])
        return items[chosen]

    @signature({"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_to_string(self, value: object) -> str | None:
        return None if value is None else _lexeme(value)

    @signature({"types": ["array", "string"]}, {"types": []})  # type: ignore[untyped-decorator] # as above
    def _func_contains(self, subject: list[object] | str, search: object) -> bool:
        if isinstance(subject, str):
            return isinstance(search, str) and search in subject
        return any(are_equal(element, search, self._scope) for element in subject)

    @signature({"types": ["string"]}, {"types": ["array-string"]})  # type: ignore[untyped-decorator] # as above
    def _func_join(self, separator: str, array: list[str]) -> str:
        self._scope.spend(len(array) + len(separator) * len(array) // TEXT_STEP)
        return separator.join(array)

    @signature({"types": ["object"], "variadic": True})  # type: ignore[untyped-decorator] # as above
    def _func_merge(self, *arguments: dict[str, object]) -> dict[str, object]:
        self._scope.spend(sum(map(len, arguments)))
        return {name: value for argument in arguments for name, value in argument.items()}


for _name in ("day", "instant"):
    OwnFunctions.FUNCTION_TABLE[_name]["function"].most = 2


# Those that change or read each character of a text; what the others do is as fast as copying it.
_FOLDING = frozenset({"words", "lower", "truth", "to_number"})


def _length(value: object) -> int:
    """Count the characters of a text, or of the texts of a list."""
    if type(value) is str:
        return len(value)
    if type(value) is Real:
        return len(value.lexeme)
    return sum(map(_length_of_text, value)) if type(value) is list else 0


def _length_of_text(value: object) -> int:
    return len(value) if type(value) is str else 0


# There are some 600 zones; the library keeps eight.
@lru_cache(maxsize=1024)
def _zone_of(name: str) -> ZoneInfo:
    return ZoneInfo(name)


def _text(value: object) -> str:
    text = text_of_id(value)
    if text is None:
        raise UnfitError
    return text


def _lexeme(value: object) -> str:
    return value.lexeme if isinstance(value, Real) else _text(value)


def are_equal(left: object, right: object, scope: Scope) -> bool:
    """Compare two values as JMESPath does, paying for each pair."""
    pairs = [(left, right)]
    while pairs:
        one, other = pairs.pop()
        scope.spend(2)
        if type(one) is not type(other) and not (_is_number(one) and _is_number(other)):
            return False
        if isinstance(one, list):
            if len(one) != len(other):  # type: ignore[arg-type] # of the same type
                return False
            pairs.extend(zip(one, other, strict=True))  # type: ignore[call-overload] # as above
            scope.spend(len(one))
        elif isinstance(one, dict):
            if one.keys() != other.keys():  # type: ignore[attr-defined] # as above
                return False
            pairs.extend((inner, other[name]) for name, inner in one.items())  # type: ignore[index] # as above
            scope.spend(len(one) + sum(map(len, one)) // TEXT_STEP)
        else:
            scope.spend(_length(one) // TEXT_STEP)
            if one != other:
                return False
    return True


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


class _Interpreter(TreeInterpreter):  # type: ignore[misc] # the library has no types
    """Walks the tree of an expression, pays for each step, and notes what is read."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope
        self._functions = OwnFunctions(scope)

    def visit(self, node: Node, value: object) -> object:
        scope = self._scope
        scope.left -= 1
        if scope.left < 0:
            raise ExhaustedError
        result = _METHODS[node["type"]](self, node, value)
        if type(result) is list:
            scope.spend(len(result))
        return result

    def visit_field(self, node: Node, value: object) -> object:
        name = node["value"]
        scope = self._scope
        if name == "root" and value is scope.element and value is not scope.root:
            return scope.root
        if type(value) is not dict:
            return None
        found = value.get(name)
        scope.read[id(value), name] = found
        return found

    def visit_comparator(self, node: Node, value: object) -> object:
        left, right = (self.visit(child, value) for child in node["children"])
        if node["value"] not in ("eq", "ne"):
            self._scope.spend(min(_length(left), _length(right)) // TEXT_STEP)
            operands = [{"type": "literal", "value": operand, "children": []} for operand in (left, right)]
            return super().visit_comparator({**node, "children": operands}, value)
        return are_equal(left, right, self._scope) == (node["value"] == "eq")

    def _is_false(self, value: object) -> bool:
        return value is None or value is False or (type(value) in (str, list, dict) and not value)


_METHODS: Mapping[str, Callable[[_Interpreter, Node, object], object]] = {
    name.removeprefix("visit_"): getattr(_Interpreter, name) for name in dir(_Interpreter) if name.startswith("visit_")
}
