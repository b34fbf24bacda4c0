"""Cases of raw HTTP from `tests/data/raw_http`: bytes that no library sends, and the allowed responses.

A case runs on a separate connection whose sending side is then closed. In the sent bytes, `<<name>>` is replaced by a
value of `_words`, and `<<text*n>>` by n copies of the text. `answers` lists the allowed sequences of status codes until
the server closes; `code` is the code of the last response, if given, and `taken` the number of published deliveries.
"""

import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.builders import a_body, signed_headers

CASES = Path(__file__).parent / "data" / "raw_http"
_TOKEN = re.compile(r"<<(?:([a-z-]+)|(.+?)\*([0-9]+))>>", re.DOTALL)
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")
_LENGTH = re.compile(rb"^content-length: ([0-9]+)\r?$", re.IGNORECASE | re.MULTILINE)


@dataclass(frozen=True, slots=True)
class RawCase:
    """One case: the parts to send, the allowed sequences of status codes, and how many deliveries may be published."""

    name: str
    parts: tuple[str, ...]
    answers: tuple[str, ...]
    taken: tuple[int, ...]
    code: str = ""

    def pieces(self) -> list[bytes]:
        words = _words(self.name)

        def word(found: re.Match[str]) -> str:
            return words[found[1]] if found[1] else found[2] * int(found[3])

        return [_TOKEN.sub(word, part).encode("latin-1") for part in self.parts]


def raw_cases(*files: str) -> list[RawCase]:
    found = []
    for path in sorted(CASES.glob("*.toml")):
        if not files or path.stem in files:
            for case in tomllib.loads(path.read_text())["case"]:
                send, taken = case["send"], case.get("taken", 0)
                found.append(
                    RawCase(
                        case["name"],
                        (send,) if isinstance(send, str) else tuple(send),
                        tuple(case["answers"]),
                        (taken,) if isinstance(taken, int) else tuple(taken),
                        case.get("code", ""),
                    )
                )
    return found


def statuses(received: bytes, *, head: bool = False) -> Iterator[tuple[int, bytes]]:
    """Split the received bytes into status codes and bodies; a response to HEAD (`head`) has no body."""
    at = 0
    while at < len(received):
        found = _STATUS.match(received, at)
        assert found, f"no answer at {received[at : at + 40]!r}"
        length = _LENGTH.search(found[2])
        end = found.end() + (int(length[1]) if length and not head else 0)
        yield int(found[1]), received[found.end() : end]
        at = end


def a_delivery(name: str) -> tuple[str, bytes]:
    """Return the id and body of the delivery of a case, or of its alias."""
    webhook_id = f"evt_{name}"[:200]
    return webhook_id, a_body(id=webhook_id)


def _words(name: str) -> Mapping[str, str]:
    webhook_id, body = a_delivery(name)
    headers = signed_headers(body, webhook_id=webhook_id)
    hidden_id, hidden_body = a_delivery(f"smuggled_{name}")
    hidden = (
        f"POST /webhooks/drx?smuggled={name} HTTP/1.1\r\nHost: x\r\n"
        f"{_lines(signed_headers(hidden_body, webhook_id=hidden_id))}Content-Length: {len(hidden_body)}\r\n\r\n"
        f"{hidden_body.decode()}"
    )
    text = body.decode()
    return {
        "post": f"POST /webhooks/drx?case={name} HTTP/1.1\r\nHost: x\r\n",
        "post-other": f"POST /webhooks/other?case={name} HTTP/1.1\r\nHost: x\r\n",
        "signed": _lines(headers),
        "id": webhook_id,
        "timestamp": headers["webhook-timestamp"],
        "signature": headers["webhook-signature"],
        "body": text,
        "rest-of-body": text[2:],
        "size": str(len(body)),
        "length": f"Content-Length: {len(body)}\r\n",
        "hex": f"{len(body):x}",
        "chunked": f"{len(body):x}\r\n{text}\r\n0\r\n\r\n",
        "chunks": "".join(f"1\r\n{each}\r\n" for each in text) + "0\r\n\r\n",
        "smuggled": hidden,
        "smuggled-length": f"Content-Length: {len(hidden)}\r\n",
    }


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())
