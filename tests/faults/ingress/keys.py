import base64
import secrets
from pathlib import Path

from bridge.dev.files import write_text
from tests.builders import KEY, signed_headers

_KEY_BYTES = 32
FORGER_KEY = b"whoever forges knows another key"


class Keys:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._slots = {"current": KEY}
        self._key = KEY

    def sign(self, webhook_id: str, at: int, body: bytes) -> dict[str, str]:
        return signed_headers(body, webhook_id=webhook_id, timestamp=at, key=self._key)

    @staticmethod
    def forge(webhook_id: str, at: int, body: bytes) -> dict[str, str]:
        """Sign as an attacker who knows everything except the secret."""
        return signed_headers(body, webhook_id=webhook_id, timestamp=at, key=FORGER_KEY)

    @property
    def current(self) -> bytes:
        return self._key

    def add(self) -> list[str]:
        """Add a slot; return the names of the earlier ones."""
        before = list(self._slots)
        name = f"slot-{secrets.token_hex(4)}"
        self._slots[name] = secrets.token_bytes(_KEY_BYTES)
        write_text(self._directory / name, f"whsec_{base64.b64encode(self._slots[name]).decode()}\n")
        return before

    def use_newest(self) -> None:
        self._key = list(self._slots.values())[-1]

    def remove(self, names: list[str]) -> None:
        for name in names:
            del self._slots[name]
            (self._directory / name).unlink()
