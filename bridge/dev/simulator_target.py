"""Where the simulator sends to, and what it signs with."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

from bridge.dev.simulator import Sign
from bridge.errors import ConfigError
from bridge.ingress.signatures import parse_secret, sign

DEFAULT_PATH = "/webhooks/drx"
SECRET_FILE_MAX_BYTES = 4096  # as a slot file of the ingress: one secret and two dates


def webhook_url(url: str) -> str:
    """Complete an address of the bridge to one of its webhooks.

    Raises:
        ConfigError: No http or https address.
    """
    with suppress(ValueError):
        parts = urlsplit(url)
        if parts.scheme in {"http", "https"} and parts.hostname and (parts.port is None or parts.port):
            return urlunsplit(parts._replace(path=DEFAULT_PATH if parts.path in {"", "/"} else parts.path))
    msg = f"--url: {url!r} is no http:// or https:// address"
    raise ConfigError(msg)


def signer(path: Path) -> Sign:
    """Read the shared secret that signs, in the form of a slot file of the ingress.

    Raises:
        ConfigError: Unreadable, or no `whsec_` secret on its first line.
    """
    try:
        with path.open("rb") as file:
            first_line = file.read(SECRET_FILE_MAX_BYTES).split(b"\n", 1)[0]
        key, _ = parse_secret(first_line.strip().decode("ascii", "replace"))
    except OSError as exc:
        msg = f"--secret-file: cannot read {path} ({exc.strerror})"
        raise ConfigError(msg) from None
    except ConfigError as exc:
        msg = f"--secret-file: {path}: {exc}"
        raise ConfigError(msg) from None
    if key is None:
        msg = f"--secret-file: {path} holds a public key; signing needs a secret that starts with whsec_"
        raise ConfigError(msg)
    return lambda webhook_id, timestamp, body: sign(webhook_id, timestamp, body, key=key)
