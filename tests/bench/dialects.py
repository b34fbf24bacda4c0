"""What a vendor's dialect costs: each sample through its profile and through the mapping file that says the same.

Beside them a mapping of forty expressions, and what an author could do worst: expressions that double what they read,
and a deep body.
"""

from __future__ import annotations

import json
import timeit
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge.event import ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles.mapped import compile_mapping
from bridge.ingress.profiles.profile import Profile
from tests.contract.test_mapping_samples import mapping
from tests.unit.profile_documents import SAMPLES, a_delivery
from tests.unit.vendor_documents import PROFILES, ROWS

ROUNDS, REPEATS = 100, 15
OPTIONAL = (
    *("prescriber_order_number", "rx_reference_number", "message_id", "relates_to_message_id", "pharmacy_rx_number"),
    *("lot_number", "raw_status", "patient.middle_name", "patient.phone", "patient.email", "patient.mrn", "patient.id"),
    *(f"patient.address.{name}" for name in ("line1", "line2", "city", "state", "postal_code", "country")),
    *(f"pharmacy.{name}" for name in ("ncpdp_id", "name", "npi", "phone", "fax")),
    *(f"prescriber.{name}" for name in ("id", "npi", "spi", "first_name", "last_name", "agent_id", "dea_number")),
)
HEAD = 'prefix = "acme:"\nclaims = [{claims}]\n[[event]]\nwhen = "kind == \'STATE\'"\nkey = "rx.id"\naccount = "shop"\n'
FORTY = (
    HEAD.format(claims=", ".join(f'"/m{number}"' for number in range(len(OPTIONAL))))
    + 'type = "fulfillment.status_changed"\n[event.data]\nqueue_id = "rx.id"\n'
    + 'fulfillment_status = "words(state, `{\\"IN_WORK\\": \\"in_progress\\", \\"DONE\\": \\"packed\\"}`)"\n'
    + 'active = "truth(on)"\npatient_pay = "price"\npatient.first_name = "trim(first)"\npatient.last_name = "last"\n'
    + 'patient.date_of_birth = "day(born)"\npatient.sex = "sex"\n'
    + "".join(f'{name} = "m{number}"\n' for number, name in enumerate(OPTIONAL))
)
BODY: dict[str, Any] = {
    "kind": "STATE",
    "shop": "s",
    "rx": {"id": "7"},
    "state": "DONE",
    "on": "Y",
    "price": "15.00",
    "first": "A",
    "last": "B",
    "born": "9/1/1979",
    "sex": "F",
    **{f"m{number}": f"value {number}" for number in range(len(OPTIONAL))},
}
HOSTILE = {
    "a list doubled": "|".join(["[@,@][]"] * 62),
    "trees compared": "|".join(["[@,@]"] * 40) + "==" + "|".join(["[@,@]"] * 40),
    "a text doubled": "|".join(["join('',[@,@])"] * 33),
    "a list of lists": "lines[*].[*].[*].[*].[*]",
}


def run(console: Console) -> None:
    """Print the least of several repeats, in microseconds per delivery."""
    shown = Table("body", "profile, µs", "mapping file, µs", title="the map of one delivery")
    for row in ROWS:
        body = (SAMPLES / row["file"]).read_bytes()
        both = (PROFILES[row["profile"]], mapping(row["profile"]))
        shown.add_row(row["file"].removeprefix("profiles/"), *(f"{_least_us(each, body):.1f}" for each in both))
    forty = compile_mapping(FORTY.encode(), "forty.toml", {})
    count = 1 + sum(len(table.expressions) + len(table.data) for table in forty.tables)
    shown.add_row(f"{count} expressions", "", f"{_least_us(forty, json.dumps(BODY).encode()):.1f}")
    deep: Any = {"id": "7"}
    for _ in range(24):
        deep = {"a": deep}
    steps = ".".join(["a"] * 24 + ["id"])
    shown.add_row("25 levels", "", f"{_least_us(_hostile(steps), json.dumps(deep | {'x': 1}).encode()):.1f}")
    lines = json.dumps({"rx": "7", "lines": [[0] * 50] * 2000}).encode()
    for name, expression in HOSTILE.items():
        shown.add_row(name, "", f"{_least_us(_hostile(expression[:500]), lines, rounds=1):.1f}")
    console.print(shown)


def _hostile(expression: str) -> Profile:
    """Make a mapping that has the expression twice: where it decides, and where it is a field."""
    text = 'prefix = "acme:"\n[[event]]\ntype = "system.ping"\nkey = "rx"\nwhen = """' + expression + '"""\n'
    text += '[event.data]\nmessage = """' + expression + '"""\n'
    return compile_mapping(text.encode(), "hostile.toml", {"account_id": "a"})


def _least_us(profile: Profile, body: bytes, *, rounds: int = ROUNDS) -> float:
    document = parse(body)
    if isinstance(document, ParkReason):
        raise TypeError
    delivery = a_delivery(body)
    least = min(timeit.repeat(lambda: profile.map(delivery, document), number=rounds, repeat=REPEATS))
    return least / rounds * 1e6
