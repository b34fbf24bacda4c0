"""Any mapping file and body: events that survive encoding, a reason, or an error line for the file's author."""

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bridge.errors import ConfigError
from bridge.event import ParkReason
from bridge.mapping.json_body import parse, to_json_text
from bridge.mapping.mapped import MappingFile, compile_mapping
from tests.fuzz.choices import Choices
from tests.fuzz.mapping import value_of
from tests.profile_properties import assert_closed, assert_writable
from tests.unit.profile_documents import a_delivery

WORDS = (b"when = ", b"each = ", b"root", b"[*]", b"[]", b"@", b"&", b"`1`", b"words(", b"day(", b"merge(", b"sort_by(")

OPERANDS = (
    *("@", "a", "b.c", "lines", "lines[*]", "lines[]", "*", "*.*", "root", "@|[@,@][]", "`1`", "'x'", "`[]`", "-1"),
)
CALLS = (
    *("{0}", "!{0}", "{0} == {1}", "{0} > {1}", "{0} || {1}", "{0} && {1}", "[{0}, {1}]", "{{a: {0}}}", "{0} | {1}"),
    *("words({0}, `{{}}`)", "words({0}, {1})", "day({0})", "day({0}, {1})", "instant({0})", "instant({0}, {1})"),
    *(
        "lower({0})",
        "trim({0})",
        "text({0})",
        "truth({0})",
        "first([{0}, {1}])",
        "segment({0}, {1}, {0})",
        "segment({0}, '/', `-1`)",
        "seconds({0})",
        "not_null({0}, {1})",
        "to_array({0})",
    ),
    *("segment({0}, {1}, {0})", "segment({0}, '/', `-1`)", "seconds({0})"),
    *("to_string({0})", "to_number({0})", "contains({0}, {1})", "join({0}, {1})", "sort({0})", "sort_by({0}, &{1})"),
    *("max_by({0}, &{1})", "map(&{0}, {1})", "merge({0}, {1})", "keys({0})", "values({0})", "reverse({0})", "sum({0})"),
    *("[?{0}]", "lines[?{0}].{1}", "length({0})", "type({0})", "abs({0})", "avg({0})", "starts_with({0}, {1})"),
)
FIELDS = ("raw_status", "patient_pay", "active", "lot_number", "pharmacy_rx_number", "billing_status")
ODD_FIELDS = (
    *("queue_id.", "raw_kind", "extensions.a", "patient.name", "network_status.raw_kind", "a\nb", "", "note.x.y"),
)
CONSTANTS = ('`"x"`', '`"UNKNOWN"`', "`1`", "`1e999`", '`"\\ud800"`', "`null`", "`[]`", "`true`")
LEADING = ("when", "id", "time", "account", "correlation", "each")
POINTERS = ("/a", "/b/c", "/lines/*/a", "/lines/0", "/*", "/*/*", "/a~1", "/lines/*", "/A")


def check(content: bytes) -> None:
    choices = Choices(content)
    file = a_file(choices)
    if choices.below(16) == 0:
        at = choices.below(len(file))
        file = file[:at] + choices.text(8) + file[at + choices.below(8) :]
    try:
        mapping = compile_mapping(file.encode("utf-8", "surrogatepass"), "acme.toml", {"account_id": "acct_1"})
    except ConfigError as exc:
        said = str(exc)
    else:
        check_body(choices, mapping)
        return
    assert re.fullmatch(r"acme\.toml: [^\n]+", said)


def check_body(choices: Choices, mapping: MappingFile) -> None:
    body = to_json_text(a_body(choices)).encode()
    parsed = parse(body, arrays=mapping.ARRAYS)
    if isinstance(parsed, ParkReason):
        return
    outcome = mapping.map(a_delivery(body, id="dlv_1"), parsed)
    if isinstance(outcome, ParkReason):
        # The path is the file's, so it may have names of a vendor that are no words of ours.
        assert_closed(replace(outcome, field=""))
        return
    assert_closed(outcome)
    assert len({event.id for event in outcome.events}) == len(outcome.events) > 0
    for event in outcome.events:
        assert_writable(event)


def a_file(choices: Choices) -> str:
    head = ['prefix = "acme:"', f'zone = "{odd(choices, ("America/New_York", "UTC"), ("Mars", "../x"))}"']
    head.append(f'names = "{odd(choices, ("as_written", "any_case"), ("x",))}"')
    head += [f"{name} = {json.dumps(pointers(choices))}" for name in ("claims", "drop")]
    head += ["arrays = true"] if choices.truth() else []
    for _ in range(1 + choices.below(3)):
        head += ["[[event]]", 'type = "fulfillment.status_changed"', "key = \"a || 'k'\""]
        head += [f"{name} = {written(choices)}" for name in LEADING if choices.below(3) == 0]
        head += ["[event.data]", "queue_id = \"'q'\"", "fulfillment_status = \"'packed'\""]
        fields = dict.fromkeys(odd(choices, FIELDS, ODD_FIELDS) for _ in range(choices.below(4)))
        head += [f"{named(name)} = {written(choices)}" for name in fields]
    return "\n".join(head)


def odd(choices: Choices, sound: Sequence[str], others: Sequence[str]) -> str:
    return choices.one(sound if choices.below(16) else others)


def pointers(choices: Choices) -> list[str]:
    return [odd(choices, POINTERS, ("a", "/~2", "/")) for _ in range(choices.below(3))]


def named(field: str) -> str:
    return field if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", field) else json.dumps(field)


def written(choices: Choices) -> str:
    return json.dumps(choices.one(CONSTANTS) if choices.below(32) == 31 else expression(choices, 3))


def expression(choices: Choices, levels: int) -> str:
    if not levels or choices.truth():
        return choices.text(6) if choices.below(32) == 31 else odd(choices, OPERANDS, CONSTANTS)
    return choices.one(CALLS).format(expression(choices, levels - 1), expression(choices, levels - 1))


def a_body(choices: Choices) -> Any:
    body = {"a": value_of(choices, 2), "b": {"c": value_of(choices, 1)}, "A": choices.text(4)}
    body["lines"] = [{"a": value_of(choices, 1)} for _ in range(choices.below(4))] * (1 + choices.below(40))
    if choices.below(4) == 0:
        body["a"] = choices.one(("x", "1", " ", "ß")) * (1 << choices.below(16))
    return [body, body] if choices.below(4) == 0 else body
