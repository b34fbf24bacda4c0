"""What a vendor costs: its proof of origin, and its dialect.

The proof of each scheme stands beside the bare digest or signature check that it cannot do without. Each sample goes
through its profile; beside them a mapping of forty expressions, and what an author could do worst: expressions that
double what they read, and a deep body.
"""

from __future__ import annotations

import json
import time
import timeit
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from typing import Any

from rich.console import Console
from rich.table import Table

from bridge.event import ParkReason
from bridge.ingress.json_body import parse
from bridge.ingress.profiles.mapped import compile_mapping
from bridge.ingress.profiles.profile import Profile
from bridge.ingress.proof import HmacKey, Key, KeySlot, PublicKey, Raw
from bridge.ingress.schemes.presets import configure
from tests.rotation import SENDERS, Sender
from tests.unit.profile_documents import SAMPLES, a_delivery
from tests.unit.vendor_documents import PROFILES, ROWS

ROUNDS, REPEATS = 100, 15
PROVED = b'{"id": "evt_1", "note": "' + b"x" * 2000 + b'"}'
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
    console.print(_schemes())
    console.print(_dialects())


def _schemes() -> Table:
    shown = Table("scheme", "proof, µs", "bare check, µs", "beside it, µs", title="the proof of one delivery of 2 KB")
    now = time.time()
    for name, sender in SENDERS.items():
        scheme = configure(name, sender.parameters, tolerance_s=300)
        slots = (KeySlot("current", scheme.parse_keys(sender.secrets(0))),)
        heads = {key.encode(): value.encode() for key, value in sender.headers(0, PROVED, "evt_1").items()}
        raw = Raw(heads, PROVED, sender.query(0).removeprefix("?").encode())
        proof_us = _least(partial(scheme.prove, raw, slots, now), ROUNDS)
        check_us = _least(_bare_check(sender, slots[0].key), ROUNDS)
        shown.add_row(name, *(f"{each:.1f}" for each in (proof_us, check_us, proof_us - check_us)))
    return shown


def _bare_check(sender: Sender, key: Key) -> Callable[[], object]:
    """Return the check of a signature, the HMAC of the body, or the digest of a secret that is sent."""
    match key:
        case PublicKey():
            signature = bytes.fromhex(sender.prove(sender.secret(0), PROVED, "")["x-signature"])
            return partial(key.signed_by, signature, PROVED)
        case (HmacKey() as shared) | (HmacKey() as shared, _):
            return partial(shared.digest, PROVED)
        case _:
            return lambda: sha256(PROVED[:64]).digest()


def _dialects() -> Table:
    shown = Table("body", "µs", title="the map of one delivery")
    for row in ROWS:
        body = (SAMPLES / row["file"]).read_bytes()
        shown.add_row(row["file"].removeprefix("profiles/"), f"{_least_us(PROFILES[row['profile']], body):.1f}")
    forty = compile_mapping(FORTY.encode(), "forty.toml", {})
    count = 1 + sum(len(table.event.key) + len(table.event.leading) + len(table.event.data) for table in forty.tables)
    shown.add_row(f"{count} expressions", f"{_least_us(forty, json.dumps(BODY).encode()):.1f}")
    deep: Any = {"id": "7"}
    for _ in range(24):
        deep = {"a": deep}
    steps = ".".join(["a"] * 24 + ["id"])
    shown.add_row("25 levels", f"{_least_us(_hostile(steps), json.dumps(deep | {'x': 1}).encode()):.1f}")
    lines = json.dumps({"rx": "7", "lines": [[0] * 50] * 2000}).encode()
    for name, expression in HOSTILE.items():
        shown.add_row(name, f"{_least_us(_hostile(expression[:500]), lines, rounds=1):.1f}")
    return shown


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
    return _least(lambda: profile.map(delivery, document), rounds)


def _least(work: Callable[[], object], rounds: int) -> float:
    return min(timeit.repeat(work, number=rounds, repeat=REPEATS)) / rounds * 1e6
