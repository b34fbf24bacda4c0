"""Any headers, query and body with every scheme: no unsigned delivery is verified."""

from urllib.parse import unquote_to_bytes

from bridge.ingress.headers import header_rules, read_headers
from bridge.proof.scheme import Raw
from bridge.response_codes import REFUSED
from tests.fuzz.choices import Choices
from tests.schemes import VERIFIED, Vector, vectors, verdict

WORDS = (
    *(b"v1,", b"v1=", b"t=", b",v1=", b"sha256=", b"Basic ", b"Secret ", b"token=", b"&token=", b"%", b"1789398570"),
    *(b"x-forwarded-for", b"svix-signature", b"webhook-id"),
)
VECTORS = [vector for vector in vectors() if vector.code == VERIFIED]
SIGNING = ("standard_webhooks", "body_hmac", "ed25519")
PEERS = ("", "192.0.2.7", "10.0.0.1", "::ffff:192.0.2.7", "fe80::1%eth0", "unix")
ADDRESS_ONLY = "cidr"


def check(content: bytes) -> None:
    choices = Choices(content)
    vector = choices.one(VECTORS)
    rules = header_rules([vector.scheme])
    raw = distorted(choices, vector, sorted(rules.wanted))
    raw = raw._replace(headers=read_headers(raw.headers.items(), rules))
    said = verdict(vector.scheme, raw, vector.slots, vector.now)
    assert said == VERIFIED or said in REFUSED
    if said == VERIFIED:
        check_proved(vector, raw)


def check_proved(vector: Vector, raw: Raw) -> None:
    """Check that a verified delivery is the one that the vector's sender signed, or contains its secret."""
    proof = vector.scheme.verify(raw, vector.slots, vector.now)
    true = vector.scheme.verify(vector.raw, vector.slots, vector.now)
    assert proof.slot in {slot.name for slot in vector.slots} | {ADDRESS_ONLY}
    if vector.scheme.name in SIGNING:
        assert raw.body == vector.raw.body
        assert proof.timestamp == true.timestamp
        assert proof.id == true.id or not proof.id_signed
    elif vector.scheme.keyed:
        sent = b"\n".join((*raw.headers.values(), unquote_to_bytes(raw.query)))
        assert any(part in sent for part in secrets_sent(vector))


def secrets_sent(vector: Vector) -> list[bytes]:
    """Return the credentials of the vector as they were sent."""
    heads = [value.rpartition(b" ")[2] for value in vector.raw.headers.values()]
    return [*heads, *(unquote_to_bytes(pair.partition(b"=")[2]) for pair in vector.raw.query.split(b"&") if pair)]


def distorted(choices: Choices, vector: Vector, names: list[bytes]) -> Raw:
    heads = dict(vector.raw.headers)
    for _ in range(choices.below(4)):
        name = choices.one(sorted(heads)) if heads and choices.truth() else choices.one(names)
        heads[name] = spoilt(choices, heads.get(name, b""))
    if choices.below(8) == 1 and heads:
        del heads[choices.one(sorted(heads))]
    query = spoilt(choices, vector.raw.query) if choices.below(4) == 1 else vector.raw.query
    body = spoilt(choices, vector.raw.body) if choices.below(4) == 1 else vector.raw.body
    peer = choices.one(PEERS) if choices.below(4) == 1 else vector.raw.peer
    return Raw(heads, body, query, peer)


def spoilt(choices: Choices, text: bytes) -> bytes:
    """Change a string in one position, or choose any."""
    if choices.below(3) == 1:
        return choices.chunk(120)
    at = choices.below(len(text) + 1)
    return text[:at] + choices.chunk(8) + text[at + choices.below(4) :]
