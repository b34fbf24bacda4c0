"""Any batch through a mapping file: each element is an event, ignored or parks all, and none is in another's event.

`python -m tests.fuzz.batches N` tries N random bodies, and prints how they ended and how long the slowest one took.
"""

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bridge.event import ParkReason
from bridge.mapping.json_body import parse, to_json_text
from bridge.mapping.mapped import MappingFile
from bridge.mapping.profile import IGNORED, Mapped
from tests.fuzz.choices import Choices
from tests.fuzz.mapping import edit, value_of
from tests.profile_properties import assert_writable
from tests.unit.mapping_files import compiled
from tests.unit.profile_documents import a_delivery

WORDS = (b"\x00\x01\x02\x03\x04", b"\x05\x06\x07\x08\x09", b"\x0a\x0b\x0c\x0d\x0e\x0f", b"\x00" * 16)
INPUT_BYTES = 200
SLOW_S = 0.05

_UPDATE = """\
type = "prescription.updated"
[event.data]
changed_fields = '`[]`'
reason = "let.why"
patient.last_name = "name"
"""
_TABLES = f"""\
[let]
why = "first([why, note])"
[[event]]
name = "a"
when = "type == 'P'"
{_UPDATE}
[[event]]
name = "b"
when = "type == 'S'"
type = "fill.status_changed"
[event.data]
fill_number = '`1`'
fill_status = "state"
note = "let.why"
[[event]]
name = "a"
when = "both == 'yes'"
{_UPDATE}
"""
_HEAD = """\
prefix = "fz:"
key = ["shop", "rx"]
reported = "type"
ignore = ["PING"]
correlation = "order"
time = "at"
"""
WORDS_OF_UPDATES = ("P", "S", "Q", "PING", "mark", 7)
ODD_WORDS = ("", None, "no word", {"a": "mark"})
MARK = re.compile(r"mark-[0-9]+-[0-9]+-")
Path = tuple[str | int, ...]


class Shape(NamedTuple):
    """A mapping file, the bodies that it is for, and where these have their elements."""

    mapping: MappingFile
    body: Callable[[list[Any], dict[str, Any]], Any]  # from elements and what is around them
    elements: Callable[[Any], list[Path]]
    orders: Callable[[Any], list[Path]] = lambda _: []  # what elements stand in


def listed(found: Any, *at: str | int) -> list[Path]:
    if isinstance(found, dict):
        return [at]
    return [(*at, n) for n, item in enumerate(found) if item is not None] if isinstance(found, list) else []


def member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def events_of(body: Any) -> list[Path]:
    return listed(member(body, "events"), "events")


def orders_of(body: Any) -> list[Path]:
    return listed(member(body, "orders"), "orders")


def lines_of(body: Any) -> list[Path]:
    found = []
    for order in orders_of(body):
        lines = listed(member(at(body, order), "lines"), *order, "lines")
        # One whose lines are all null has a list, and no line in it.
        found += lines or ([] if member(at(body, order), "lines") else [order])
    return found


def filtered_of(body: Any) -> list[Path]:
    return [] if isinstance(member(body, "events"), dict) else events_of(body)


def members_of(body: Any) -> list[Path]:
    found = member(body, "rxs")
    if isinstance(found, dict):
        return [("rxs", name) for name, item in found.items() if item is not None]
    return []


def at(body: Any, path: Path) -> Any:
    for step in path:
        body = body[step]
    return body


def holds(element: Any) -> bool:
    return member(element, "type") in ("P", "S") or member(element, "both") == "yes"


def in_events(elements: list[Any], around: dict[str, Any]) -> Any:
    return around | {"events": elements}


def in_orders(elements: list[Any], around: dict[str, Any]) -> Any:
    half = len(elements) // 2
    orders = [{"name": "mark", "id": "mark", "lines": elements[:half]}, {"shop": "mark", "lines": elements[half:]}]
    return around | {"orders": orders}


def a_file(each: str, head: str = "") -> MappingFile:
    return compiled(f'{head}{_HEAD}each = "{each}"\n{_TABLES}')


SHAPES = (
    Shape(a_file("events"), in_events, events_of),
    Shape(a_file("events", 'id = "no"\n'), in_events, events_of),
    Shape(a_file("events[?contains(['P', 'S'], type) || both == 'yes']"), in_events, filtered_of),
    Shape(a_file("orders[].lines"), in_orders, lines_of, orders_of),
    Shape(a_file("orders[].lines", "id = \"join('-', [parent.id, no])\"\n"), in_orders, lines_of, orders_of),
    Shape(
        a_file("rxs.*"),
        lambda elements, around: around | {"rxs": {f"m/{n}": each for n, each in enumerate(elements)}},
        members_of,
    ),
    Shape(a_file("@", "arrays = true\n"), lambda elements, _: elements, listed),
    Shape(a_file("events", 'names = "any_case"\n'), in_events, events_of),
)


def check(content: bytes) -> None:
    outcome_of(Choices(content))


def outcome_of(choices: Choices) -> str:
    """Map one batch, check that all of it is accounted for, and return how it ended."""
    shape = choices.one(SHAPES)
    elements = [element(choices) for _ in range(1 + choices.below(7))]
    around = {"batch": "mark", "type": choices.one(("BATCH", None, "PING", "mark")), "sent": value_of(choices, 1)}
    body = {"": shape.body(elements, around)}
    for _ in range(max(0, choices.below(5) - 2)):
        edit(choices, body) if body else None
    # Parsed before it is marked: no two places are one object then.
    parsed: Any = parse(to_json_text(body.get("", {})).encode(), arrays=shape.mapping.ARRAYS)
    if isinstance(parsed, ParkReason):
        return "malformed"
    marked(shape, parsed)
    text = to_json_text(parsed).encode()
    outcome = shape.mapping.map(a_delivery(text, id="dlv_1"), parsed)
    if isinstance(outcome, ParkReason):
        assert outcome.reason in ("unusable", "unknown_type")
        assert not MARK.search(outcome.field)
        return f"parked {outcome.reason} {outcome.detail}"
    assert_accounted(shape, parsed, outcome)
    return "ignored" if outcome is IGNORED else f"{len(outcome.events)} events"


def element(choices: Choices) -> Any:
    """Make an update."""
    if choices.below(24) == 0:
        return value_of(choices, 1)
    made: dict[str, Any] = {
        "type": choices.one(ODD_WORDS if choices.below(16) == 0 else WORDS_OF_UPDATES),
        "rx": choices.one(("mark", 7, "1", "a b", None)) if choices.below(8) == 0 else "mark",
        "no": choices.one(("mark", 7, None, "a b")),
        "state": choices.one(("dispensed", "mark", "transferred")),
        "name": "mark",
        "more": [{"a": "mark"}, value_of(choices, 1)],
    }
    for name in ("why", "note", "both", "shop", "order", "at"):
        if choices.below(4) == 0:
            made[name] = choices.one(("mark", "yes", {"a": "mark"}, "2026-09-14"))
    return made


def marked(shape: Shape, body: Any) -> None:
    """Make each text of a body that says `mark` a text of its own that names its place."""
    owners = [*shape.elements(body), *shape.orders(body)]
    count = 0
    for path, holder, name in leaves(body):
        if holder[name] == "mark":
            owner = max((each for each in owners if each == path[: len(each)]), key=len, default=None)
            holder[name] = f"mark-{owners.index(owner) if owner else len(owners)}-{count}-"
            count += 1


def leaves(node: Any, *way: str | int) -> Iterator[tuple[Path, Any, Any]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for name, child in items:
        if isinstance(child, dict | list):
            yield from leaves(child, *way, name)
        else:
            yield (*way, name), node, name


def assert_accounted(shape: Shape, body: Any, outcome: Mapped) -> None:
    """Check that each element is in events of its own, and in these alone; one that is ignored is in none."""
    said = [repr(event.value) for event in outcome.events]
    for one in outcome.events:
        assert_writable(one)
    assert len({one.id for one in outcome.events}) == len(said)
    elements = shape.elements(body)
    owners = [*elements, *shape.orders(body)]
    texts: dict[int, set[str]] = {}
    for _, holder, name in leaves(body):
        if isinstance(text := holder[name], str) and MARK.fullmatch(text):
            texts.setdefault(int(text.split("-")[1]), set()).add(text)
    for number, path in enumerate(elements):
        own = texts.get(number, set())
        found = [event for event in said if any(text in event for text in own)]
        # Tables are about lines, and not about an order without any.
        is_read = path not in shape.orders(body)
        if is_ignored(at(body, path), body) and not (is_read and holds(at(body, path))):
            assert not found
            continue
        assert all(any(text in event for event in found) for text in own), own
        strangers = {
            text
            for other, held in texts.items()
            for text in held
            if other < len(owners) and other != number and owners[other] != path[: len(owners[other])]
        }
        for event in found:
            assert not [text for text in strangers if text in event]


def is_ignored(element: Any, body: Any) -> bool:
    word = member(element, "type")
    if word is None or (isinstance(word, str) and not word.strip()):
        word = member(body, "type")
    return bool(word == "PING")


def main(executions: int) -> None:
    rng = random.Random(executions)  # noqa: S311 - a seed is replayed
    ends: Counter[str] = Counter()
    slowest = 0.0
    for _ in range(executions):
        content = rng.randbytes(INPUT_BYTES)
        began = time.process_time()
        ends[outcome_of(Choices(content))] += 1
        slowest = max(slowest, time.process_time() - began)
    print(f"{executions:,} bodies, the slowest in {slowest * 1000:.1f} ms: {dict(ends.most_common())}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
