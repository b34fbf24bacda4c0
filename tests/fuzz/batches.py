"""Any JSON or XML body through a mapping file: each element is an event, ignored, or parks the delivery.

`python -m tests.fuzz.batches N` tries N random bodies, and prints how they ended and how long the slowest one took.
"""

import copy
import gc
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path as File
from typing import Any, NamedTuple, cast
from urllib.parse import urlencode
from xml.sax.saxutils import escape

from bridge.event import ParkReason
from bridge.mapping.assemble import children
from bridge.mapping.json_body import Real, to_json_text
from bridge.mapping.mapped import MappingFile, compile_mapping
from bridge.mapping.profile import IGNORED, Mapped, read_body
from tests.fuzz.choices import Choices
from tests.fuzz.mapping import edit, value_of
from tests.profile_properties import assert_writable
from tests.unit.mapping_files import compiled
from tests.unit.profile_documents import a_delivery
from tests.unit.vendor_documents import PROFILES, sample

SPOILERS = (
    *(b"<", b"</", b"/>", b"&", b"&x;", b"<!DOCTYPE a>", b"<!--", b"]]>", b"<![CDATA[", b" a='1'", b"\xff", b"\x00"),
    *(b'"', b"\\", b"{", b"[", b"}", b"]", b",", b":", b"null", b"1e999", b"-"),
)
WORDS = (b"\x00\x01\x02\x03\x04", b"\x05\x06\x07\x08\x09", b"\x0a\x0b\x0c\x0d\x0e\x0f", b"\x00" * 16)
INPUT_BYTES = 260

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


def a_message(elements: list[Any], _: dict[str, Any]) -> Any:
    """Choose a message of SCRIPT by the number of elements; they are put into it."""
    message: Any = read_body(SCRIPT, MESSAGES[len(elements) % len(MESSAGES)])
    message["Message"]["Body"]["Extra"] = elements
    return message


def an_order(elements: list[Any], _: dict[str, Any]) -> Any:
    order: Any = copy.deepcopy(ORDER)
    order["data"]["fills"] += [{"id": "mark", "prescription": each} for each in elements]
    return order


def a_result(elements: list[Any], _: dict[str, Any]) -> Any:
    return copy.deepcopy(RESULT) | {"Extra": elements}


SCRIPT_DIR = File(__file__).parents[2] / "docs" / "examples" / "script"
SCRIPT = compile_mapping((SCRIPT_DIR / "script.toml").read_bytes(), "script.toml", {"account_id": "a"}).reading_xml()
MESSAGES = [file.read_bytes() for file in sorted(SCRIPT_DIR.glob("*.xml"))]
ORDER, RESULT = sample("p16"), sample("p12")

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
    Shape(
        a_file("m.events", 'account = "m.shop"\n').reading_xml(),
        lambda elements, around: {"m": in_events(elements, around)},
        lambda body: listed(member(member(body, "m"), "events"), "m", "events"),
    ),
    Shape(
        a_file("m.orders[].lines").reading_xml(),
        lambda elements, around: {"m": in_orders(elements, around)},
        lambda body: [("m", *path) for path in lines_of(member(body, "m"))],
        lambda body: [("m", *path) for path in orders_of(member(body, "m"))],
    ),
    Shape(
        a_file("m.events", 'form = "m"\naccount = "m.shop"\n'),
        lambda elements, around: {"m": in_events(elements, around), "by": "mark"},
        lambda body: listed(member(member(body, "m"), "events"), "m", "events"),
    ),
    Shape(SCRIPT, a_message, lambda _: []),
    Shape(
        cast("MappingFile", PROFILES["photon_cloudevents"]),
        an_order,
        lambda body: listed(member(member(body, "data"), "fills"), "data", "fills"),
    ),
    Shape(cast("MappingFile", PROFILES["dosespot_push"]), a_result, lambda _: []),
)


def check(content: bytes) -> None:
    outcome_of(Choices(content))


def outcome_of(choices: Choices, *, is_thorough: bool = True) -> tuple[str, float]:
    """Map one body, check that every element is accounted for, and return the outcome and the duration in seconds."""
    shape = choices.one(SHAPES)
    text = a_body(choices, shape)
    began = time.perf_counter()
    parsed: Any = read_body(shape.mapping, text)
    took_s = time.perf_counter() - began
    if isinstance(parsed, ParkReason):
        assert parsed.reason in ("malformed_json", "malformed_xml", "malformed_form")
        return parsed.reason, took_s
    # What is marked after it was parsed names the place that it has now.
    marked(shape, parsed)
    began = time.perf_counter()
    outcome = shape.mapping.map(a_delivery(text, id="dlv_1"), parsed)
    took_s += time.perf_counter() - began
    if isinstance(outcome, ParkReason):
        assert outcome.reason in ("unusable", "unknown_type")
        assert not MARK.search(outcome.field)
        return f"parked {outcome.reason} {outcome.detail}", took_s
    assert_accounted(shape, parsed, outcome)
    for event in outcome.events if is_thorough else ():
        assert_writable(event)
    return "ignored" if outcome is IGNORED else f"{len(outcome.events)} events", took_s


def a_body(choices: Choices, shape: Shape) -> bytes:
    """Make the body of a batch, with some edits of its tree and of its bytes."""
    elements = [element(choices) for _ in range(1 + choices.below(7))]
    around = {"batch": "mark", "type": choices.one(("BATCH", None, "PING", "mark")), "sent": value_of(choices, 1)}
    body = {"": shape.body(elements, around)}
    for _ in range(max(0, choices.below(5) - 2)):
        if body:
            edit(choices, body)
    whole = body.get("", {})
    text = bytearray(written_by(shape.mapping)(whole).encode())
    for _ in range(max(0, choices.below(6) - 3)):
        at = choices.below(len(text) + 1)
        match choices.below(4):
            case 0:
                text[at:at] = choices.one(SPOILERS)
            case 1:
                del text[at : at + 1 + choices.below(8)]
            case 2:
                text[at : at + 1] = choices.take(1)
            case _:
                start = choices.below(len(text) + 1)
                text[at:at] = text[start : start + choices.below(200)]
    return bytes(text)


def written_by(mapping: MappingFile) -> Callable[[Any], str]:
    def to_form(tree: Any) -> str:
        return urlencode({name: each if isinstance(each, str) else to_json_text(each) for name, each in children(tree)})

    if mapping.file.document.form:
        return to_form
    return to_xml if "+xml" in mapping.CONTENT_TYPES else to_json_text


def to_xml(tree: Any) -> str:
    """Write a tree as XML; names that XML does not allow lose what it does not."""

    def written(name: str, value: Any) -> str:
        if isinstance(value, list):
            return "".join(written(name, each) for each in value)
        name = re.sub(r"[^A-Za-z0-9_.-]", "", name)
        name = name if re.match("[A-Za-z_]", name) else f"n{name}"
        content = "" if value is None else value.lexeme if isinstance(value, Real) else str(value)
        if isinstance(value, dict):
            content = "".join(written(inner, child) for inner, child in value.items())
        else:
            content = escape(re.sub(r"[^\x20-\ud7ff]", "", content))
        return f"<{name}>{content}</{name}>"

    roots = [*tree.items()] if isinstance(tree, dict) else []
    return written(*roots[0]) if roots else "<empty/>"


def element(choices: Choices) -> Any:
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
    """Replace each `mark` in a body by a unique string with its position."""
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
    """Check that each element is only in its events, and ignored elements in none."""
    said = [repr(event.value) for event in outcome.events]
    assert len({event.id for event in outcome.events}) == len(said)
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
    slowest_s = 0.0
    gc.freeze()  # what the program itself holds is not looked through again and again
    for number in range(executions):
        content = rng.randbytes(INPUT_BYTES)
        try:
            end, took_s = outcome_of(Choices(content), is_thorough=number % 16 == 0)
        except BaseException:
            print(f"broken by {content.hex()}", flush=True)  # noqa: T201
            raise
        ends[end] += 1
        if took_s > slowest_s:  # on a busy machine others have run meanwhile
            slowest_s = max(slowest_s, min(outcome_of(Choices(content))[1] for _ in range(5)))
    print(f"{executions:,} bodies, the slowest in {slowest_s * 1000:.1f} ms: {dict(ends.most_common())}")  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]))
