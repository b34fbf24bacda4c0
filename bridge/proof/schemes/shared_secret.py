"""A secret that is itself sent: in a header, as HTTP Basic or in the URL. It does not cover body or time.

Anyone who sees one delivery has the secret, so these schemes need TLS, and are weaker than signatures.
"""

import re
from binascii import b2a_base64
from collections.abc import Sequence
from hashlib import sha256
from urllib.parse import unquote_to_bytes

from bridge.errors import ConfigError
from bridge.proof.scheme import (
    SIGNATURE_MAX_BYTES,
    KeySlot,
    Proof,
    Raw,
    Scheme,
    SharedSecret,
    matching_slot,
    refuse,
    refuse_mismatch,
)
from bridge.proof.schemes.parameters import Parameters

SECRET_HEADER, BASIC, URL_TOKEN = "secret_header", "basic", "url_token"
# Minimum lengths: passwords chosen by people have few bits per character; tokens are generated, and appear in URLs,
# which proxies log.
HEADER_MIN_CHARS, PASSWORD_MIN_CHARS, TOKEN_MIN_CHARS = 16, 12, 24

_is_header_text = re.compile(r"[!-~](?:[ -~]*[!-~])?").fullmatch
_is_word = re.compile(r"[!-~]{0,100}").fullmatch
_is_token = re.compile(r"[!-~]+").fullmatch
_is_param = re.compile(r"[A-Za-z0-9._~-]{1,100}").fullmatch


class SecretHeader(Scheme):
    """Verifies deliveries by a secret in a header, optionally after a scheme name, as in `Authorization: Secret …`."""

    name = SECRET_HEADER
    form = re.compile(rb"(?s).+")

    def __init__(self, parameters: Parameters) -> None:
        self.header = parameters.header("header", "x-webhook-secret")
        word = parameters.text("word", "")
        if not _is_word(word):
            raise parameters.error("word", "must be one word of printable ASCII characters")
        self.word = word.encode()
        self.headers = frozenset({self.header})

    def parse_key(self, text: str) -> SharedSecret:
        """Use the line as the secret."""
        if len(text) < HEADER_MIN_CHARS or not _is_header_text(text):
            raise ConfigError(f"a secret of {SECRET_HEADER} has at least {HEADER_MIN_CHARS} printable ASCII characters")
        return SharedSecret(text.encode())

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Compare the header with each secret."""
        return _matching(credential(raw, self.header, self.word, self.form), keys, now)

    def describe(self) -> str:
        """Name the header and the scheme name."""
        return f"{SECRET_HEADER} {self.header.decode()} {self.word.decode()}".rstrip()


class Basic(SecretHeader):
    """Verifies deliveries by user and password of HTTP Basic (RFC 7617)."""

    name = BASIC
    form = re.compile(rb"[A-Za-z0-9+/]+={0,2}")

    def __init__(self) -> None:
        self.header, self.word = b"authorization", b"Basic"
        self.headers = frozenset({self.header})

    def parse_key(self, text: str) -> SharedSecret:
        """Encode `user:password` as sent."""
        user, colon, password = text.partition(":")
        if not (user and colon and len(password) >= PASSWORD_MIN_CHARS and text.isprintable()):
            msg = f"a secret of {BASIC} is user:password, the password of at least {PASSWORD_MIN_CHARS} characters"
            raise ConfigError(msg)
        # Encoded forms are compared, so that only the strict encoding of the bytes matches.
        return SharedSecret(b2a_base64(text.encode(), newline=False))

    def describe(self) -> str:
        """Return the name of the scheme."""
        return BASIC


class UrlToken(Scheme):
    """Verifies deliveries by a token in the query of the URL."""

    name = URL_TOKEN
    reads_query = True

    def __init__(self, parameters: Parameters) -> None:
        param = parameters.text("param", "token")
        if not _is_param(param):
            raise parameters.error("param", "must be a name of letters, digits, `.`, `_`, `~` and `-`")
        self._param = param.encode()

    def parse_key(self, text: str) -> SharedSecret:
        """Use the line as the secret."""
        if len(text) < TOKEN_MIN_CHARS or not _is_token(text):
            msg = f"a secret of {URL_TOKEN} has at least {TOKEN_MIN_CHARS} printable ASCII characters without space"
            raise ConfigError(msg)
        return SharedSecret(text.encode())

    def verify(self, raw: Raw, keys: Sequence[KeySlot], now: float) -> Proof:
        """Compare the token with that of each slot."""
        tokens = self._tokens(raw.query)
        if not tokens:
            refuse("signature_missing")
        if len(tokens) > 1:
            refuse("header_duplicated")
        if not tokens[0] or len(tokens[0]) > SIGNATURE_MAX_BYTES:
            refuse("signature_malformed")
        return _matching(unquote_to_bytes(tokens[0]), keys, now)

    def describe(self) -> str:
        """Name the parameter."""
        return f"{URL_TOKEN} {self._param.decode()}"

    def _tokens(self, query: bytes) -> list[bytes]:
        pairs = (pair.partition(b"=") for pair in query.split(b"&"))
        return [value for name, _, value in pairs if name == self._param]


def credential(raw: Raw, header: bytes, word: bytes, form: re.Pattern[bytes]) -> bytes:
    """Return a header's value, after the scheme name if one is set, in any letter case (RFC 9110 11.1)."""
    sent = raw.headers.get(header)
    if sent is None:
        refuse("signature_missing")
    if word:
        first, space, rest = sent.partition(b" ")
        sent = rest.lstrip(b" ") if space and first.lower() == word.lower() else b""
    if len(sent) > SIGNATURE_MAX_BYTES or not form.fullmatch(sent):
        refuse("signature_malformed")
    return sent


def _matching(sent: bytes, keys: Sequence[KeySlot], now: float) -> Proof:
    digest = sha256(sent).digest()
    matched = matching_slot(keys, now, lambda key: isinstance(key, SharedSecret) and key.equals(digest))
    if matched is None:
        refuse_mismatch(keys, now)
    return Proof(None, None, matched.name)
