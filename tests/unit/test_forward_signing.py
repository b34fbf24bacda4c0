"""What forward sends is signed as the standard says, by every secret that counts."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.ingress.proof import KeySlot, Raw
from bridge.ingress.schemes.standard_webhooks import StandardWebhooks, parse_secret
from bridge.runtime.slots import load_slots
from consumers.forward.signing import SigningSlot, parse_slot, signatures
from consumers.forward.sink import read_headers

NOW = datetime(2026, 9, 14, 15, 9, 26, 535897, tzinfo=UTC)
BODY = '{"name":"Zoë"}'.encode()


def whsec(number: int, *, size: int = 32) -> str:
    return "whsec_" + base64.b64encode(bytes([number]) * size).decode()


def slots(directory: Path, **files: str) -> tuple[SigningSlot, ...]:
    for name, text in files.items():
        (directory / name).write_text(text)
    return load_slots(directory, parse_slot)


def proved_by(signature: str, secret: str, *, now: datetime = NOW) -> str:
    """Verify as the ingress does, which its vectors hold to the standard; return the slot."""
    heads = {
        b"webhook-id": b"evt_1",
        b"webhook-timestamp": str(int(now.timestamp())).encode(),
        b"webhook-signature": signature.encode(),
    }
    key = KeySlot("current", parse_secret(secret))
    return StandardWebhooks().prove(Raw(heads, BODY), [key], now.timestamp()).slot


def test_every_secret_that_counts_signs(tmp_path: Path) -> None:
    found = slots(
        tmp_path,
        current=whsec(1),
        previous=f"{whsec(2)}\naccept_until = 2026-09-14T15:09:27Z\n",
        old=f"{whsec(3)}\naccept_until = 2026-09-14T15:09:26Z\n",
        coming=f"{whsec(4)}\nnot_before = 2026-09-15T00:00:00Z\n",
    )

    signed = signatures(found, webhook_id="evt_1", now=NOW, body=BODY)

    assert len(signed.split(" ")) == 2
    assert proved_by(signed, whsec(1)) == proved_by(signed, whsec(2)) == "current"
    with pytest.raises(Exception, match="signature_mismatch"):
        proved_by(signed, whsec(3))


def test_without_a_secret_that_counts_there_is_no_signature(tmp_path: Path) -> None:
    found = slots(tmp_path, current=f"{whsec(1)}\nnot_before = 2027-01-01T00:00:00Z\n")

    assert signatures(found, webhook_id="evt_1", now=NOW, body=BODY) == ""


@pytest.mark.parametrize("zone", [None, timezone(timedelta(hours=2))])
def test_another_zone_than_utc_is_refused(tmp_path: Path, zone: timezone | None) -> None:
    """The library replaces the zone instead of converting to UTC, and signs another moment than the header says."""
    with pytest.raises(ValueError, match=r"^$"):
        signatures(slots(tmp_path, current=whsec(1)), webhook_id="evt_1", now=NOW.replace(tzinfo=zone), body=BODY)


def test_static_headers_are_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "headers"
    file.write_text("Authorization: Bearer a:b c\n\nx-team :  desk \n")

    assert read_headers(file) == {"authorization": "Bearer a:b c", "x-team": "desk"}
    assert read_headers(None) == {}


@pytest.mark.parametrize(
    "text",
    [
        *("no header\n", "a b: hunter2\n", "x: hunter2\nX: hunter2\n", "webhook-id: hunter2\n"),
        *("Content-Length: 7\n", "drx-x: 1\n", "host: hunter2\n", "x: hunter2\x00\n", "x: hünter2\n"),
    ],
)
def test_a_line_that_is_no_header_of_theirs_ends_the_start_and_is_not_shown(tmp_path: Path, text: str) -> None:
    file = tmp_path / "headers"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(ConfigError, match="headers_file") as caught:
        read_headers(file)

    assert "hunter2" not in str(caught.value)
