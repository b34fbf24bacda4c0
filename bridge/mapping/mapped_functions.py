"""Expressions of mapping files: JMESPath with functions for vendors' formats, and a bounded cost.

An expression has no loops and at most `LENGTH_MAX` characters, so its cost depends on the lists that it traverses.
Operations that could double their input are not allowed (`&` expressions, `merge`, comparing trees, joining long
strings). Every step, element and call of the others is charged to a budget of the delivery. Numbers with fractions stay
`Real`, exactly as written: `text(x)` gives their digits.
"""

import copy
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime, tzinfo
from types import MappingProxyType
from typing import Any, NamedTuple

import jmespath
from jmespath.exceptions import JMESPathError
from jmespath.functions import Functions
from jmespath.visitor import TreeInterpreter

from bridge.mapping.json_body import Real
from bridge.mapping.profile import Flag
from bridge.mapping.readers import text_of_id
from bridge.mapping.values import MILLISECONDS_FROM, exact, instant_of_epoch
from bridge.mapping.words import day_of, instant_of, is_given, is_plain_day, is_scalar_given, truth_of, zone_named

LENGTH_MAX = 500  # characters; a longer expression is a program
# Budget of one delivery for all expressions, in steps of some 0.3 microseconds; forty expressions take some 200.
BUDGET = 50_000
# Steps of a call, which takes 2 to 5 microseconds, and of a disk lookup of an unknown zone, which takes 30.
CALL_STEPS, ZONE_STEPS = 10, 100
# Maximum length of a string whose case a function changes or which it reads as a date, at 48 nanoseconds a character;
# type names and dates are shorter. Also of joined strings, since each step of a pipe could double them.
TEXT_MAX = 1_000

# Names by which an expression refers to values outside its element.
AROUND = frozenset({"root", "parent"})

Node = dict[str, Any]
_LET: Node = {"type": "field", "children": [], "value": "let"}
Words = Mapping[str, Mapping[str, str]]


class ExpressionError(ValueError):
    """An invalid expression; the message is for the author of the file."""


class ExhaustedError(Exception):
    """A delivery's budget is used up."""


class UnfitError(ValueError):
    """A function cannot read its argument."""


class Scope:
    """Evaluation state of one delivery: its budget, and the members that the current expression has read."""

    def __init__(self, root: object, zone: tzinfo | None, *, prefix: str = "") -> None:
        self._interpreter = _Interpreter(self)
        self.left = BUDGET  # steps left of the budget
        # Members read: identity of the object and name -> value. Left out are values only tested (`_LOOKS`), compared
        # without being equal, and strings used as a condition.
        self.read: dict[tuple[int, str], object] = {}
        self.flags: set[Flag] = set()  # leniencies used
        self.zone = zone  # for times without a zone
        self.prefix = prefix  # key prefix of the source
        self.root = self.element = root  # the whole body, and the current element of it
        self.parent: object = None  # the element that contains the current element's list, if lists are nested
        self.time: datetime | None = None  # time of the event being drafted
        self.spread: set[int] = set()  # identities of objects whose members were read as a list
        # Identity of an element and name in `[let]` -> value, and the members read for it.
        self.named: dict[tuple[int, str], tuple[object, dict[tuple[int, str], object]]] = {}

    def evaluate(self, expression: "Expression", value: object) -> object:
        """Evaluate on `value`, and note the members read; may raise `UnfitError` or `ExhaustedError`."""
        self.read = {}
        try:
            return self._interpreter.visit(expression.node, value)
        except ExhaustedError:
            raise
        except Exception:  # noqa: BLE001 - the library raises any exception of Python for unexpected operands
            raise UnfitError from None

    def around(self, name: str, element: object) -> object:
        """Return the whole body or the parent, unless the body itself has a member of that name."""
        if element is self.root and type(element) is dict and name in element:
            return None
        return self.root if name == "root" else self.parent

    def spend(self, steps: int) -> None:
        """Charge steps to the budget; `ExhaustedError` if too few are left."""
        self.left -= steps
        if self.left < 0:
            raise ExhaustedError

    def forget(self, values: Iterable[object], chosen: object) -> None:
        """Forget that these values were read, since `chosen` was used instead."""
        passed = {id(value) for value in values} - {id(chosen)}
        self.spend(len(self.read) + len(passed))
        for place in [place for place, value in self.read.items() if id(value) in passed]:
            del self.read[place]


class Expression(NamedTuple):
    """A compiled expression."""

    node: Node  # root of its tree
    path: str  # path of the first member it reads, array indexes as `*`; empty if it reads none
    paths: Mapping[str, str]  # last name of each member it may read -> path
    names: frozenset[str]  # names of all members it may read

    @property
    def constant(self) -> object:
        """The value of a literal; None for any other expression."""
        return _exact(self.node["value"]) if self.node["type"] == "literal" else None


def compile_expression(
    text: str,
    *,
    any_case: bool = False,
    tables: Words = MappingProxyType({}),
    lets: Mapping[str, Node] = MappingProxyType({}),
) -> Expression:
    """Compile and check a JMESPath expression; `lets` defines each `let.name`. May raise `ExpressionError`."""
    if len(text) > LENGTH_MAX:
        raise ExpressionError(f"longer than {LENGTH_MAX} characters")
    try:
        # A copy, since the library caches the tree of a string, and lookup tables are inserted into it.
        tree: Node = copy.deepcopy(jmespath.compile(text).parsed)
        tree = _with_lets(tree, lets) if lets else tree
        nodes = list(_nodes(tree))
    except JMESPathError as exc:
        position = getattr(exc, "lex_position", None)
        msg = "invalid JMESPath" if position is None else f"invalid JMESPath from character {position + 1}"
        raise ExpressionError(msg) from None
    except (RecursionError, ValueError):
        raise ExpressionError("invalid JMESPath: nested too deeply, or a literal that is not JSON") from None
    for node in nodes:
        if node["type"] == "function_expression":
            _check_call(node, tables)
        elif node["type"] == "expref":
            raise ExpressionError("no &expressions")
        elif node["type"] in ("literal", "field"):
            _check_value(node["value"])
    paths = [path for path in map(_path, nodes) if path]
    if any_case:
        tree = _casefolded(tree)
        nodes = list(_nodes(tree))
    names = frozenset(node["value"] for node in nodes if node["type"] == "field")
    # The longest path to a name comes first, before its parts.
    by_name = {(last.casefold() if any_case else last): path for path in reversed(paths) for last in [_last(path)]}
    return Expression(tree, next(iter(paths), ""), by_name, names)


def _with_lets(node: Node, lets: Mapping[str, Node]) -> Node:
    """Replace each `let.name` by its tree of `lets`."""
    children = [_with_lets(child, lets) if isinstance(child, dict) else child for child in node["children"]]
    if node["type"] == "subexpression" and children[0] == _LET:
        name, *rest = children[1:]
        if name.get("value") not in lets:
            raise ExpressionError(f"there is no {str(name.get('value'))[:40]!r} in [let]")
        let = {"type": "let", "value": name["value"], "children": [lets[name["value"]]]}
        return {**node, "children": [let, *rest]} if rest else let
    if any(child == _LET for child in children):
        raise ExpressionError("let must precede a name of [let]; after a `!` in parentheses, as in !(let.x)")
    return {**node, "children": children}


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _nodes(node: Node) -> Iterator[Node]:
    yield node
    for child in node["children"]:
        if isinstance(child, dict):  # a slice has numbers as children
            yield from _nodes(child)


def _casefolded(node: Node) -> Node:
    children = [_casefolded(child) if isinstance(child, dict) else child for child in node["children"]]
    value = node["value"].casefold() if node["type"] == "field" else node.get("value")
    return {**node, "children": children} | ({} if value is None else {"value": value})


def targets(node: Node) -> Iterator[object]:
    """Yield the values of an expression that are fixed in the file: literals, and values of tables."""
    children = node["children"]
    match node["type"], node.get("value"):
        case "literal", value:
            yield value
        case "or_expression", _:
            yield from (value for child in children for value in targets(child))
        case (("pipe" | "and_expression" | "let"), _):
            yield from targets(children[-1])
        case "function_expression", "not_null":
            yield from (value for child in children for value in targets(child))
        case "function_expression", "words" | "lookup":
            yield from children[1]["value"].values()


def _path(node: Node) -> str:
    """Format a chain of members and indexes as a path; empty for other nodes."""
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


def _check_call(node: Node, tables: Words) -> None:
    name, given = node["value"], node["children"]
    if name in _OWN:
        least, most = _OWN[name][1:]
    elif name in Functions.FUNCTION_TABLE and name not in _LEFT_OUT:
        wanted = Functions.FUNCTION_TABLE[name]["signature"]
        least = most = len(wanted)
    else:
        raise ExpressionError(f"unknown function {name!r}")
    if not least <= len(given) <= most:
        raise ExpressionError(f"function {name!r} takes other arguments")
    if name == "instant" and len(given) > 1 and given[1]["type"] == "literal":
        _check_zone(given[1]["value"])
    if name == "day" and len(given) > 1:
        _check_format(given[1].get("value") if given[1]["type"] == "literal" else None)
    if name in ("words", "lookup"):
        given[1] = {**given[1], "value": _table(name, given[1], tables)}


def _table(function: str, node: Node, tables: Words) -> dict[str, object]:
    """Return the table of a call: a literal, or the file's table with this name."""
    named = node.get("value") if node["type"] == "literal" else None
    if isinstance(named, str):
        named = tables.get(named)
    if not isinstance(named, Mapping):
        how = f"name in [tables], as in {function}(x, 'name'), or a JSON object in back-ticks"
        raise ExpressionError(f"the table of function {function!r} is not a {how}")
    return {plain_word(word): meaning for word, meaning in reversed(list(named.items()))} | dict(named)


def plain_word(word: str) -> str:
    """Return a value in lower case, without spaces and underscores."""
    return "".join(word.casefold().replace("_", " ").split())


def _check_value(value: object) -> None:
    """Refuse lone surrogates, which records cannot hold, and NaN and infinity."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except UnicodeEncodeError:
        raise ExpressionError("a string with half of a surrogate pair") from None
    except ValueError:
        raise ExpressionError("a number that is not finite") from None


def _check_zone(name: object) -> None:
    if zone_named(str(name)) is None:
        raise ExpressionError(f"no time zone is named {str(name)[:40]!r}")


def _check_format(text: object) -> None:
    try:
        # Only a literal can be checked here.
        format_ = text if isinstance(text, str) else "%"
        datetime.strptime(datetime(2001, 2, 3, tzinfo=UTC).strftime(format_), format_)  # noqa: DTZ007 - tried only
    except (ValueError, re.error):  # `re.error` for a repeated directive
        raise ExpressionError(f"{str(text)[:40]!r} is not a date format, such as %d.%m.%Y") from None


def _exact(value: object) -> object:
    """Convert the floats of a literal to `Real`, as in a body."""
    if isinstance(value, float):
        return Real(repr(value))
    if isinstance(value, dict):
        return {name: _exact(inner) for name, inner in value.items()}
    return [_exact(inner) for inner in value] if isinstance(value, list) else value


_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")


def _words(_: Scope, word: object, table: Mapping[str, object]) -> object:
    """Look up a value, exactly or by `plain_word`; an unknown value is returned unchanged."""
    return None if word is None else _looked_up(word, table, _lexeme(word))


def _lookup(_: Scope, word: object, table: Mapping[str, object]) -> object:
    """Look up a value as `words` does; null if it is unknown or not a string."""
    return None if text_of_id(word) is None else _looked_up(word, table, None)


def _looked_up(word: object, table: Mapping[str, object], missing: object) -> object:
    text = _lexeme(word)
    if text in table or len(text) > TEXT_MAX:
        return table.get(text, missing)
    return table.get(plain_word(text), missing)


def _day(scope: Scope, text: object, *formats: object) -> str | None:
    """Read a day: ISO, American, or in a `strptime` format. A member with more than a day is also kept."""
    if not is_given(text):
        return None
    if formats:
        return datetime.strptime(_short(text), _text(formats[0])).date().isoformat()  # noqa: DTZ007 - a day has no zone
    if not is_plain_day(_short(text)):
        scope.forget([text], None)
    return day_of(_short(text)).isoformat()


def _instant(scope: Scope, text: object, *zones: object) -> str | None:
    """Read an instant, or a local time or day in the given zone or else the file's."""
    if not is_given(text):
        return None
    zone = scope.zone
    if zones:
        zone = zone_named(_short(zones[0]))
        if zone is None:
            scope.spend(ZONE_STEPS)
            raise UnfitError
    return instant_of(_short(text), zone, scope.flags).isoformat()


def _number_as_written(_: Scope, number: object) -> str | None:
    return None if number is None else _lexeme(number)


def _id(scope: Scope, text: object) -> str | None:
    """Return an id: a string or an integer."""
    if type(text) is int:
        scope.flags.add("integer_as_string_id")
    return None if text is None else _text(text)


def _digits(_: Scope, text: object) -> str | None:
    """Return a string if it has only digits, else null."""
    found = "" if text is None else _text(text)
    return found if found.isascii() and found.isdecimal() else None


def _prefixed(scope: Scope, *parts: object) -> str | None:
    """Join the source's prefix and the parts; null if a part is missing."""
    return scope.prefix + _joined("", [_text(part) for part in parts]) if all(map(is_given, parts)) else None


def _without(_: Scope, text: object, beginning: object) -> str | None:
    """Remove a prefix from a string."""
    if not isinstance(text, str | None) or not isinstance(beginning, str):
        raise UnfitError
    return None if text is None else _text(text).removeprefix(beginning)


def _segment(_: Scope, text: object, separator: object, number: object) -> str | None:
    """Return a part of a string by its index, from the end if negative; null if there is none."""
    if not isinstance(separator, str) or not separator or type(number) is not int:
        raise UnfitError
    parts = [] if text is None else _short(text).split(separator)
    return parts[number] if -len(parts) <= number < len(parts) else None


def _seconds(scope: Scope, number: object) -> str | None:
    """Read Unix seconds, as a number or its digits."""
    if not is_given(number):
        return None
    lexeme = number.lexeme if isinstance(number, Real) else _short(number)
    if not _JSON_NUMBER.fullmatch(lexeme) or exact(lexeme).copy_abs() >= MILLISECONDS_FROM:
        raise UnfitError
    return instant_of_epoch(lexeme, scope.flags).isoformat()


def _truth(_: Scope, value: object) -> bool | None:
    truth = truth_of(_short(value) if isinstance(value, str) else value)
    if truth is None and is_given(value):
        raise UnfitError
    return truth


def _given(_: Scope, *values: object) -> bool:
    """Return whether any value is a number or a non-blank string."""
    return any(map(is_scalar_given, values))


def _first_text(scope: Scope, items: object) -> object:
    """Return the first non-blank string; values other than strings and null are errors."""
    if isinstance(items, list) and not all(isinstance(item, str | None) for item in items):
        scope.flags.add("field_unfit")
    return _chosen(scope, items, lambda item: type(item) is str and is_given(item))


def _chosen(scope: Scope, items: object, wanted: Callable[[object], bool]) -> object:
    if items is None:
        return None
    if not isinstance(items, list):
        raise UnfitError
    chosen: object = next((item for item in items if wanted(item)), None)
    scope.forget(items, chosen)
    return chosen


def _to_number(_: Scope, value: object) -> object:
    """Read a string that is a JSON number."""
    if type(value) is not str:
        return value if _is_number(value) or isinstance(value, Real) else None
    found = _JSON_NUMBER.fullmatch(_short(value))
    if found is None:
        return None
    return float(found[0]) if found[1] or found[2] else int(found[0])


def _type(_: Scope, value: object) -> str:
    kinds = {
        str: "string",
        bool: "boolean",
        int: "number",
        float: "number",
        Real: "number",
        list: "array",
        dict: "object",
    }
    return kinds.get(type(value), "null")


def _contains(_: Scope, subject: object, search: object) -> bool:
    if isinstance(subject, str):
        return isinstance(search, str) and search in subject
    if not isinstance(subject, list):
        raise UnfitError
    return any(are_equal(element, search) for element in subject)


def _join(_: Scope, separator: object, array: object) -> str:
    if not isinstance(separator, str) or not isinstance(array, list):
        raise UnfitError
    return _joined(separator, array)


def _joined(separator: str, parts: list[str]) -> str:
    if sum(map(len, parts)) + len(separator) * len(parts) > TEXT_MAX:
        raise UnfitError
    return separator.join(parts)


class _Own(NamedTuple):
    """One of our functions, with its minimum and maximum number of arguments."""

    call: Callable[..., object]
    least: int = 1
    most: int = 1


_OWN: Mapping[str, _Own] = MappingProxyType(
    {
        "contains": _Own(_contains, 2, 2),
        "day": _Own(_day, most=2),
        "digits": _Own(_digits),
        "first": _Own(lambda scope, items: _chosen(scope, items, is_given)),
        "first_text": _Own(_first_text),
        "given": _Own(_given, most=LENGTH_MAX),
        "id": _Own(_id),
        "instant": _Own(_instant, most=2),
        "join": _Own(_join, 2, 2),
        "lookup": _Own(_lookup, 2, 2),
        "lower": _Own(lambda _, text: None if text is None else _short(text).lower()),
        "not_null": _Own(
            lambda scope, *given: _chosen(scope, list(given), lambda each: each is not None), most=LENGTH_MAX
        ),
        "prefixed": _Own(_prefixed, most=LENGTH_MAX),
        "seconds": _Own(_seconds),
        "segment": _Own(_segment, 3, 3),
        "text": _Own(_number_as_written),
        "time": _Own(lambda scope: scope.time.isoformat() if scope.time else None, 0, 0),
        "to_number": _Own(_to_number),
        "to_string": _Own(_number_as_written),
        "trim": _Own(lambda _, text: None if text is None else _text(text).strip()),
        "truth": _Own(_truth),
        "type": _Own(_type),
        "without": _Own(_without, 2, 2),
        "words": _Own(_words, 2, 2),
    }
)
# Functions that only test a value, so that the event does not contain it. A value that `contains` finds is also in the
# file.
_LOOKS = frozenset({"contains", "ends_with", "given", "length", "starts_with", "type"})
# JMESPath functions that are not allowed: they take an expression, or return more than they read.
_LEFT_OUT = frozenset({"map", "max_by", "merge", "min_by", "sort_by"})


def _text(value: object) -> str:
    text = text_of_id(value)
    if text is None:
        raise UnfitError
    return text


def _short(value: object) -> str:
    """Return a string if it is short enough to be read by character; else raise `UnfitError`."""
    text = _text(value)
    if len(text) > TEXT_MAX:
        raise UnfitError
    return text


def _lexeme(value: object) -> str:
    return value.lexeme if isinstance(value, Real) else _text(value)


def are_equal(left: object, right: object) -> bool:
    """Compare two values as JMESPath does; lists and objects only if one is empty."""
    if isinstance(left, list | dict) and isinstance(right, list | dict) and left and right:
        raise UnfitError
    return (type(left) is type(right) or (_is_number(left) and _is_number(right))) and left == right


def _is_number(value: object) -> bool:
    return type(value) in (int, float)


class _Interpreter(TreeInterpreter):  # type: ignore[misc] # the library is untyped
    """Walks the tree of an expression, charges each step, and notes the members read."""

    def __init__(self, scope: Scope) -> None:
        super().__init__()
        self._scope = scope

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
        if name in AROUND and value is scope.element and (around := scope.around(name, value)) is not None:
            return around
        if type(value) is not dict:
            return None
        found = value.get(name)
        scope.read[id(value), name] = found
        return found

    def visit_function_expression(self, node: Node, value: object) -> object:
        scope, name = self._scope, node["value"]
        before = scope.read
        if name in _LOOKS:
            scope.read = {}
        arguments = [self.visit(child, value) for child in node["children"]]
        scope.spend(CALL_STEPS + sum(len(each) for each in arguments if type(each) is list))
        if name == "values":
            scope.spread.update(map(id, arguments))
        own = _OWN.get(name)
        result = own.call(scope, *arguments) if own else self._functions.call_function(name, arguments)
        if name in _LOOKS:
            found = name == "contains" and result and type(arguments[0]) is list
            self._looked(before, counts=bool(found))
        return result

    def _looked(self, before: dict[tuple[int, str], object], *, counts: bool) -> None:
        """Restore the members read `before`; keep the members read since only if `counts`."""
        if counts:
            before.update(self._scope.read)
        self._scope.read = before

    def visit_value_projection(self, node: Node, value: object) -> object:
        base, chosen = node["children"]
        owner = self.visit(base, value)
        if type(owner) is not dict:
            return None
        self._scope.spread.add(id(owner))
        found = [self.visit(chosen, each) for each in owner.values()]
        return [each for each in found if each is not None]

    def visit_let(self, node: Node, value: object) -> object:
        scope, place = self._scope, (id(value), node["value"])
        if value is not scope.element:  # its identity may be reused later
            return self.visit(node["children"][0], value)
        if place not in scope.named:
            before, scope.read = scope.read, {}
            scope.named[place] = self.visit(node["children"][0], value), scope.read
            scope.read = before
        result, read = scope.named[place]
        scope.read.update(read)
        return result

    def visit_and_expression(self, node: Node, value: object) -> object:
        left, right = node["children"]
        found = self._condition(left, value)
        return found if self._is_false(found) else self.visit(right, value)

    def visit_not_expression(self, node: Node, value: object) -> bool:
        return self._is_false(self._condition(node["children"][0], value))

    def visit_filter_projection(self, node: Node, value: object) -> object:
        base, chosen, condition = node["children"]
        elements = self.visit(base, value)
        if not isinstance(elements, list):
            return None
        found = [self.visit(chosen, each) for each in elements if not self._is_false(self._condition(condition, each))]
        return [each for each in found if each is not None]

    def _condition(self, node: Node, value: object) -> object:
        """Visit a condition; a string that it tests is not part of the event."""
        before, self._scope.read = self._scope.read, {}
        found = self.visit(node, value)
        self._looked(before, counts=type(found) is bool)
        return found

    def visit_comparator(self, node: Node, value: object) -> object:
        before, self._scope.read = self._scope.read, {}
        left, right = (self.visit(child, value) for child in node["children"])
        if node["value"] not in ("eq", "ne"):
            self._looked(before, counts=False)
            operands = [{"type": "literal", "value": operand, "children": []} for operand in (left, right)]
            return super().visit_comparator({**node, "children": operands}, value)
        holds = are_equal(left, right) == (node["value"] == "eq")
        self._looked(before, counts=holds and node["value"] == "eq")
        return holds

    def _is_false(self, value: object) -> bool:
        return value is None or value is False or (type(value) in (str, list, dict) and not value)


_METHODS: Mapping[str, Callable[[_Interpreter, Node, object], object]] = {
    name.removeprefix("visit_"): getattr(_Interpreter, name) for name in dir(_Interpreter) if name.startswith("visit_")
}
