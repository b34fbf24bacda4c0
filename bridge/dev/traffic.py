"""Generated deliveries about fictitious people: the scenarios of `scenarios/SOURCE.ndjson`, repeated with new ids.

A file has one body per line and a blank line after each scenario; `simulate --scenario` can send the file unchanged.
"""

import random
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import orjson

from bridge.sender.sender import Post

# Scenarios interleaved: enough that neighbours have different keys, few enough that each scenario ends soon.
AT_ONCE = 16
# Crockford's base 32, in which DRx writes its ids.
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
# Patterns of the ids in these files; replaced, so that each repetition has a new prescription and patient.
_IDS = re.compile(
    rb"(\b(?:evt|rx|rr|cr|cx|al|pat|ord|fil)_|\bPON-|\bMRN-|\b1Z|"
    rb'"(?:externalId|queue_id|rx_reference_number|pharmacy_rx_number|QueueID|RxNumber|PrescriptionId|PatientId)":"?)'
    rb"([0-9A-Z]+)|()\b([0-9a-f]{32}|[0-9A-Z]{26})\b"
)


def deliveries(seed: int, *, source: str = "drx") -> Iterator[Post]:
    """Yield deliveries endlessly; the same seed gives the same bytes.

    The events of one scenario come in order, interleaved with other scenarios. All twenty types of native DRx appear
    within the first two hundred.
    """
    rng = random.Random(seed)  # noqa: S311 - test traffic, not keys
    waiting = _scenarios(rng, source)
    running = [next(waiting) for _ in range(AT_ONCE)]
    while True:
        chosen = rng.randrange(len(running))
        outgoing = next(running[chosen], None)
        if outgoing is None:
            running[chosen] = next(waiting)
        else:
            yield outgoing


def _scenarios(rng: random.Random, source: str) -> Iterator[Iterator[Post]]:
    while True:
        for number in range(len(scenarios(source))):
            bodies = scenario(rng, number, source=source)
            yield iter([Post(orjson.loads(body).get("id") or new_id(rng), body) for body in bodies])


def scenario(rng: random.Random, number: int = 0, *, source: str = "drx") -> list[bytes]:
    """Return the bodies of a scenario with new ids; equal old ids are replaced by equal new ids."""
    known: dict[bytes, bytes] = {}

    def renamed(match: re.Match[bytes]) -> bytes:
        old = match[2] or match[4]
        if old not in known:
            known[old] = _fresh(old, rng)
        return (match[1] or b"") + known[old]

    return _IDS.sub(renamed, scenarios(source)[number]).splitlines()


@cache
def scenarios(source: str) -> list[bytes]:
    """Return the scenarios of a source, each as its lines."""
    return Path(__file__).with_name("scenarios").joinpath(f"{source}.ndjson").read_bytes().strip().split(b"\n\n")


def new_id(rng: random.Random) -> str:
    """Return a new id for a delivery whose body has none."""
    return f"msg_{rng.getrandbits(128):032x}"


def _fresh(old: bytes, rng: random.Random) -> bytes:
    if old.isdigit():  # may be a JSON number, which cannot begin with 0
        return b"%d" % rng.randrange(10 ** (len(old) - 1), 10 ** len(old))
    alphabet = ALPHABET if old.upper() == old else "0123456789abcdef"
    return "".join(rng.choices(alphabet, k=len(old))).encode()
