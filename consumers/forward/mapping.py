"""Decide whether an event is sent, where to and what of it: the same bytes at every attempt."""

from __future__ import annotations

import re
from collections.abc import Collection
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import quote

import orjson

from bridge.contract.native import native_json
from bridge.errors import ConfigError, PermanentError
from bridge.event import Event
from consumers.api import Context
from consumers.conditions import Expression

PING = "system.ping"
# An expression in a path; one that needs braces of its own cannot stand there.
_slots = re.compile(r"\{([^{}]*)\}")


class Request(NamedTuple):
    """What is sent of an event: `path` goes behind the URL, percent-encoded."""

    path: str
    body: bytes


class Mapping:
    """What one endpoint gets."""

    def __init__(
        self,
        *,
        types: Collection[str] = ("*",),
        accounts: Collection[str] | None = None,
        when: str = "",
        body: str = "",
        path: str = "",
        phi: bool = True,
        imports: bool = False,
    ) -> None:
        """Compile the filters.

        Args:
            types: As configured; only `system.ping` is looked for here.
            accounts: Account ids whose events are sent; None: all.
            when: JMESPath expression, or empty.
            body: JMESPath expression of what is sent, an object; the native body if empty.
            path: What follows the URL; `{expression}` stands for a value.
            phi: Send the whole body.
            imports: Send imported records too.

        Raises:
            ConfigError: One is no expression, or the path begins with no slash.
        """
        self._pings = PING in types
        self._accounts = None if accounts is None else frozenset(accounts)
        self._when = _compiled("when", when) if when else None
        self._body = _compiled("body", body) if body else None
        # Texts between the slots have even places.
        self._path = [_compiled("path", each) if at % 2 else each for at, each in enumerate(_slots.split(path))]
        if path and (path[0] != "/" or not is_header_text(_slots.sub("", path))):
            msg = "forward.path: begins with /, percent-encoded where it is no {expression}"
            raise ConfigError(msg)
        self._phi = phi
        self._imports = imports

    def request(self, event: Event, context: Context) -> Request | None:
        """Return what is sent of an event, or None if it is not sent.

        Raises:
            PermanentError: An expression has no usable result for this event, or its id cannot stand in a header.
        """
        if (
            (event.type == PING and not self._pings)
            or (context.origin == "import" and not self._imports)
            or (self._accounts is not None and event.value["account_id"] not in self._accounts)
        ):
            return None
        if not is_header_text(event.id):
            raise PermanentError("bad_id")
        whole = native_json(event.value) if self._phi or self._when is not None else b""
        if self._when is not None and not self._when.holds(whole, event):
            return None
        native = whole if self._phi else native_json(event.value, phi=False)
        path = "".join(each if isinstance(each, str) else _segment(each.value(native, event)) for each in self._path)
        return Request(path, native if self._body is None else _object(self._body.value(native, event)))


def _segment(value: object) -> str:
    """Return a value as it stands in a path; an empty one, or dots, would lead to another place."""
    if not isinstance(value, str | int | float) or isinstance(value, bool) or str(value) in {"", ".", ".."}:
        raise PermanentError("path_failed")
    return quote(str(value), safe="")


def _object(value: object) -> bytes:
    if isinstance(value, dict):
        with suppress(orjson.JSONEncodeError):  # as of a number of more than 64 bits
            return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    raise PermanentError("body_failed")


def is_header_text(text: str) -> bool:
    """Say whether `text` can stand in a header as it is: printable ASCII without spaces, at least one character."""
    return bool(text) and text.isascii() and text.isprintable() and " " not in text


def _compiled(option: str, expression: str) -> Expression:
    try:
        return Expression(expression, failed=f"{option}_failed")
    except ValueError as exc:
        msg = f"forward.{option}: {exc}"
        raise ConfigError(msg) from None
